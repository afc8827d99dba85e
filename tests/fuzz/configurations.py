"""YAML configurations and ``--set``: a ConfigError, or a configuration that is dumped and loaded back as it was."""

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from deploy.configs import PACKAGED, load_config
from rc_grpo.config import ConfigError, RunConfig, dump, load
from tests.fuzz.mutations import TEXTS, VALUES, Draw, mutate_tree, mutated_bytes
from tests.fuzz.target import Refused, Target, ask

_TREES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(PACKAGED.glob("*.yaml"))}
_WHOLE = [yaml.safe_load(dump(load_config(name))) for name in _TREES]
_ODD = [
    b"!!timestamp x", b"!!int _", b"!!float .", b"!!bool maybe", b"? [a]\n: b", b"&a [*a]", b"*a", b"!!python/none x",
    b"2026-99-99", b"- a", b"\t", b"%YAML 9", b"{x", b"'", b"!!binary \xff", b"{" * 2000, b"1:" * 500,
    b"<<: 3", b"!!set {a}", b"0o9", b"1e999", b".inf", b"!!omap [a]", b"!!pairs [a]", b"=", b"0x", b"0b2",
    b"190:20:30", b"\xef\xbb\xbfa: 1", b"\x00",
]  # fmt: skip


def _keys(tree: Any, above: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return []
    return [key for name, inner in tree.items() for key in (f"{above}{name}", *_keys(inner, f"{above}{name}."))]


_KEYS = sorted({key for tree in _WHOLE for key in _keys(tree)})
_SCALARS = st.one_of(
    st.sampled_from([odd.decode("utf-8", "surrogateescape") for odd in _ODD]),
    VALUES.map(lambda value: yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()),
    st.sampled_from(
        ["0", "-1", "1", "2", "true", "null", ".nan", "-.inf", "1e400", "pocket", "cpu", "[]", "{}", "9" * 400]
    ),
    TEXTS,
)
_OVERRIDES = st.lists(
    st.one_of(
        st.builds("{}={}".format, st.sampled_from(_KEYS) | TEXTS, _SCALARS),
        st.builds("{}.{}={}".format, st.sampled_from(_KEYS), TEXTS, _SCALARS),
        TEXTS,
    ),
    max_size=3,
)


@st.composite
def _files(draw: Draw) -> bytes:
    tree = draw(st.sampled_from([*_WHOLE, *_TREES.values()]))
    text = yaml.safe_dump(
        draw(st.sampled_from([tree, None])) or mutate_tree(draw, tree), allow_unicode=draw(st.booleans())
    )
    data = text.encode("utf-8", "surrogatepass")
    kind = draw(st.sampled_from(["text", "text", "bytes", "odd"]))
    if kind == "bytes":
        return draw(mutated_bytes([data]))
    if kind == "odd":
        lines = data.split(b"\n")
        at = draw(st.integers(0, len(lines) - 1))
        lines[at] = lines[at].partition(b":")[0] + b": " + draw(st.sampled_from(_ODD))
        return b"\n".join(lines)
    return data


_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-config-")


def check(drawn: tuple[bytes | str, list[str]]) -> None:
    file, overrides = drawn
    name = file
    if isinstance(file, bytes):
        name = str(Path(_FOLDER.name) / "config.yaml")
        Path(name).write_bytes(file)
    config = ask(lambda: load_config(str(name), overrides), ConfigError)
    if isinstance(config, Refused):
        return
    assert isinstance(config, RunConfig)
    again = Path(_FOLDER.name) / "again.yaml"
    ask(lambda: again.write_bytes(dump(config).encode()))
    loaded = ask(lambda: load(again))
    assert loaded == config, "what was dumped is loaded as something else"


TARGET = Target("configurations", st.tuples(st.one_of(_files(), st.sampled_from([*_TREES]), TEXTS), _OVERRIDES), check)
