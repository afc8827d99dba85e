"""Writes ``reference/config.md`` when the site is built, from the pydantic models, so that it is never stale."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from rc_grpo.config import RunConfig

PAGE = "reference/config.md"
_NAMED = "NAME"
_HEAD = """# Configuration reference

Every key of a run's configuration, its type, bounds, default and meaning. This page is generated from the pydantic
models in `rc_grpo/config` when the site is built. Defaults are those of FLUX.1-Kontext-dev.

A run is configured by a YAML file or the name of a packaged one (`pocket`, `pocket_klein`, `pocket_vllm`,
`flux_kontext_dev`, `flux_kontext_dev_one_gpu`, `flux2_klein_4b`, `flux2_klein_4b_one_gpu`, `qwen_image_edit_2511`,
`qwen_image_21`) and by
`--set A.B=VALUE`, whose value is YAML. A file may say `extends: NAME`: sections are merged key by key, and `null` takes
a key away. An unknown key is an error, with its path, before anything is started. `rc-grpo config NAME` prints the
resolved configuration; a run keeps it as `config.yaml`.

```bash
rc-grpo config flux_kontext_dev --set rollout.workers=6 --set 'rollout.acd.layers=[28, 37]'
```
"""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Put the page in the place of the one that a checkout has."""
    if (in_checkout := files.get_file_from_path(PAGE)) is not None:
        files.remove(in_checkout)
    files.append(File.generated(config, PAGE, content=page()))
    return files


@dataclass(frozen=True)
class Section:
    """A part of the configuration.

    Attributes:
        path: dotted; empty for the run.
        title: of its heading.
        schema: JSON schema of its model.
    """

    path: str
    title: str
    schema: Mapping[str, Any]

    @property
    def anchor(self) -> str:
        """Its heading's; the key that holds it has its path alone."""
        return f"{self.path}-section" if self.path else "run"

    @property
    def summary(self) -> str:
        """The first sentence that the model says of itself."""
        return str(self.schema.get("description", "")).split("\n\n")[0].split(". ")[0].rstrip(".")


def page() -> str:
    """Return the reference as Markdown."""
    schema = RunConfig.model_json_schema()
    return _HEAD + "\n".join(_described(Section("", "The run", schema), schema["$defs"]))


def _described(section: Section, models: Mapping[str, Any]) -> Iterator[str]:
    """Yield a section's heading, its table, and the sections below it; ``models`` holds all schemas by name."""
    below: list[Section] = []
    rows = []
    for key, field in section.schema["properties"].items():
        path = f"{section.path}.{key}" if section.path else key
        inner = list(_sections(path, field, models))
        below += inner
        cells = _of_sections(inner, field) if inner else _of_value(field, key in section.schema.get("required", ()))
        rows.append(f"| `{key}`{{ #{path} }} | " + " | ".join(cells) + " |")
    yield f"\n{'###' if '.' in section.path else '##'} {section.title} {{ #{section.anchor} }}\n"
    yield _prose(section.schema.get("description", ""))
    yield "\n| key | type | default | meaning |\n|---|---|---|---|"
    yield from rows
    for inner_section in below:
        yield from _described(inner_section, models)


def _sections(path: str, field: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the sections that a key holds: one, none, or one for each kind."""
    if "discriminator" in field:
        for kind, reference in field["discriminator"]["mapping"].items():
            where = f"{path.removesuffix('.' + _NAMED)}.{kind}"
            yield Section(where, f"`{path}` of kind `{kind}`", _resolved(reference, models))
        return
    for choice in (field, *field.get("anyOf", ())):
        if "$ref" in choice:
            yield Section(path, f"`{path}`", _resolved(choice["$ref"], models))
    for values in (field.get("additionalProperties"), *field.get("patternProperties", {}).values()):
        if isinstance(values, dict):
            yield from _sections(f"{path}.{_NAMED}", values, models)


def _of_sections(sections: Sequence[Section], field: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return type, default and meaning of a key that holds sections."""
    links = " or ".join(f"[section](#{section.anchor})" for section in sections)
    optional = any(choice.get("type") == "null" for choice in field.get("anyOf", ()))
    meaning = field.get("description") or "; ".join(section.summary for section in sections)
    return links + (" or none" if optional else ""), "", _cell(meaning)


def _of_value(field: Mapping[str, Any], required: bool) -> tuple[str, str, str]:
    """Return type, default and meaning of a key that holds a value."""
    return _type(field), _default(field, required), _cell(field.get("description", ""))


def _resolved(reference: str, models: Mapping[str, Any]) -> Mapping[str, Any]:
    model: Mapping[str, Any] = models[reference.rsplit("/", 1)[-1]]
    return model


def _type(field: Mapping[str, Any]) -> str:
    """Return a type and its bounds in words."""
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "any")
    if kind == "null":
        return "none"
    if kind == "array":
        if "prefixItems" in field:
            return "list of " + ", ".join(_type(item) for item in field["prefixItems"])
        return f"list of {_type(field['items'])}"
    if kind == "object":
        return f"map of names to {_type(field.get('additionalProperties') or {})}"
    word = {"boolean": "true or false", "string": "path" if field.get("format") == "path" else "text"}.get(kind, kind)
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign}\N{NO-BREAK SPACE}{field[name]:g}" for name, sign in signs.items() if name in field]
    pattern = [f"matching `{_cell(field['pattern'])}`"] if "pattern" in field else []
    return "\N{NO-BREAK SPACE}".join([word, *bounds]) + "".join(f" {part}" for part in pattern)


def _default(field: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    if "default" not in field:
        return "`{}`"  # made by a factory: the empty maps
    if field["default"] is None:
        return "none"
    if field["default"] == "":
        return "empty"
    text = yaml.safe_dump(field["default"], default_flow_style=True, width=10_000, sort_keys=False)
    return f"`{_cell(text.removesuffix('...' + chr(10)).strip())}`"


def _prose(text: str) -> str:
    return text.replace("``", "`").strip()


def _cell(text: str) -> str:
    parts = " ".join(_prose(text).split()).replace("|", "\\|").split("`")
    # Outside of code, a brace at the end of a cell would be read as the cell's attributes.
    parts[::2] = [part.replace("{", "&#123;") for part in parts[::2]]
    return "`".join(parts)
