"""Judges that ask a vision-language model behind the OpenAI protocol, on a server that is started or attached."""

import math
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from rc_grpo.config.base import Seconds, Strict
from rc_grpo.config.judges.base import JudgeConfig


class SamplingConfig(Strict):
    """How the vision-language judge answers; EditScore's published values."""

    passes: PositiveInt = Field(1, description="answers a question, whose scores are averaged; 4 is more accurate")
    temperature: float = Field(0.7, ge=0, description="0 always takes the likeliest token")
    top_p: float = Field(0.9, gt=0, le=1, description="samples among the likeliest tokens that hold this probability")
    top_k: PositiveInt = Field(20, description="samples among so many of the likeliest tokens")
    max_tokens: PositiveInt = Field(
        512, description="of an answer, its reasoning included; what is cut off does not parse"
    )
    seed: int = Field(42, ge=0, le=2**62, description="pass k of attempt a samples with seed + k + passes * a")
    attempts: PositiveInt = Field(
        3, description="how often an answer that does not parse is asked for again, anew seeded"
    )


class ClientConfig(Strict):
    """How patiently and how eagerly a server is asked."""

    concurrency: PositiveInt = Field(64, description="requests in flight to one server")
    request_deadline_s: Seconds = Field(120.0, description="one request must be answered by then")
    tries: PositiveInt = Field(4, description="of a request, on connection errors, time-outs, 408, 429 and 5xx alone")
    backoff_s: Seconds = Field(0.5, description="first pause between tries; doubles, with jitter")
    backoff_max_s: Seconds = Field(10.0, description="longest pause between tries")


class LogitsConfig(Strict):
    """How marks are read from the chances of one token; with `scoring: logits`."""

    prompts: Path | None = Field(None, description="YAML file with the four questions, one a mark; none is ours")
    least_mass: float = Field(
        0.5,
        ge=0,
        le=1,
        description="a first token that is one of the ten digits with less probability than this is a failed score",
    )
    held: bool = Field(
        False,
        description="hold the server to a digit by a schema; what the judge would have said instead is then not seen, "
        "and least_mass has nothing to check",
    )


_SLEEP, _IMAGE_CACHE, _FILES = "--enable-sleep-mode", "--mm-processor-cache-gb", "--allowed-local-media-path"


def _given(arguments: tuple[str, ...]) -> dict[str, str]:
    """Return what a command line says of each flag; the last one counts."""
    given = {}
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, equals, value = argument.partition("=")
        given[flag] = value if equals else following
    return given


class ServerConfig(Strict):
    """The vLLM server that an actor starts and cares for on its own GPUs, or on the CPU if it has none."""

    python: Path | None = Field(
        None, description="interpreter of the environment that vLLM is installed in; none is the actor's own"
    )
    tensor_parallel: PositiveInt = Field(1, description="GPUs of one server; the actor's resources must hold them")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("bfloat16", description="of the judge's weights")
    quantization: Literal["fp8"] | None = Field(
        None, description="weights and activations of a server on GPUs in float8, made of the folder's as it starts"
    )
    max_model_len: PositiveInt = Field(4096, description="tokens of prompt and answer; 4096 holds two 1024x1024 images")
    max_num_seqs: PositiveInt = Field(64, description="requests that vLLM works on at the same time")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of a GPU's memory that vLLM takes")
    kv_cache_gib: PositiveFloat | None = Field(
        None,
        description="GiB of a GPU for the prompts' keys and values (of the CPU: environment.VLLM_CPU_KVCACHE_SPACE); "
        "none is what gpu_memory_utilization leaves, which vLLM measures as it starts: wrongly where others start on "
        "the same GPU at the same time",
    )
    arguments: tuple[str, ...] = Field((), description="more command line of `vllm serve`, after ours")
    environment: dict[str, str] = Field(default_factory=dict, description="more environment variables, after ours")
    start_deadline_s: Seconds = Field(600.0, description="it must answer by then")
    reach_deadline_s: Seconds = Field(
        10.0, description="one of `urls` that refuses connections, or whose host is unknown, is given up by then"
    )
    probe_every_s: Seconds = Field(5.0, description="pause between probes of a server that runs")
    probe_deadline_s: Seconds = Field(10.0, description="a probe must be answered by then")
    probes_missed: PositiveInt = Field(3, description="unanswered probes in a row after which it counts as hanging")
    restarts: NonNegativeInt = Field(3, description="failed starts in a row after which the actor gives up")
    drain_deadline_s: Seconds = Field(20.0, description="time to finish what is under way when stopped")

    @model_validator(mode="after")
    def _never_asleep_with_images(self) -> Self:
        given = _given(self.arguments)
        if _SLEEP in given and given.get(_IMAGE_CACHE) != "0":
            raise ValueError(
                f"arguments: {_SLEEP} beside vLLM's cache of images: its two halves part company in a sleep, and the "
                f"engine dies of the next image that it has seen before (vLLM issue 42995); leave {_SLEEP} out, or add "
                f"{_IMAGE_CACHE} 0"
            )
        return self

    @model_validator(mode="after")
    def _reads_what_it_is_shown(self) -> Self:
        if _FILES in _given(self.arguments):
            raise ValueError(f"arguments: {_FILES} is set already: to the folder in which the server is shown images")
        return self


class ServedConfig(JudgeConfig):
    """What judges on a server have in common."""

    kind: str = Field(description="which kind of judge this is")
    model: str = Field(description="folder of a merged judge, a hub id, or the name that a server of `urls` gives it")
    image_side: PositiveInt = Field(512, description="images larger than this square's area are shrunk before sending")
    urls: tuple[str, ...] = Field(
        (),
        description="servers that run already (http://host:port/v1), shared out over the workers; none: start one each",
    )
    api_key_variable: str = Field(
        "RC_GRPO_JUDGE_KEY", description="environment variable with the key of `urls`; a started server gets its own"
    )
    groups_in_flight: PositiveInt = Field(4, description="groups that one actor scores at the same time")
    sampling: SamplingConfig = SamplingConfig()
    client: ClientConfig = ClientConfig()
    server: ServerConfig = ServerConfig()

    @model_validator(mode="after")
    def _servers_fit(self) -> Self:
        if self.urls and self.workers < len(self.urls):
            raise ValueError(
                f"workers = {self.workers} cannot use {len(self.urls)} urls; give each at least one worker"
            )
        gpus, share = self.resources.num_gpus, self.server.gpu_memory_utilization
        if not self.urls and gpus > 0 and math.ceil(gpus) < self.server.tensor_parallel:
            raise ValueError(
                f"server.tensor_parallel = {self.server.tensor_parallel} but resources.num_gpus = {gpus:g}: "
                "a server runs on its actor's own GPUs"
            )
        if not self.urls and gpus == 0 and self.server.quantization is not None:
            raise ValueError(
                f"server.quantization = {self.server.quantization} but resources.num_gpus = 0: a server on the CPU "
                "has no float8; give the judge a GPU, or leave it out"
            )
        if not self.urls and 0 < gpus < 1 and share > gpus:
            raise ValueError(
                f"server.gpu_memory_utilization = {share:g} but resources.num_gpus = {gpus:g}: it would take the "
                "memory of those it shares the GPU with; set it to that share or less"
            )
        for url in self.urls:
            if (fault := _fault(url)) is not None:
                raise ValueError(f"urls: {url!r} {fault}; an address is http://host:port/v1")
        return self


_OF_TEXT = {
    "prompts": "its questions are logits.prompts",
    "order": "its words always come first",
    "reasoning_characters": "nothing is reasoned",
    "sampling.passes": "all passes would be alike",
}


class EditScoreConfig(ServedConfig):
    """EditScore: a vision-language judge behind the OpenAI protocol."""

    kind: Literal["editscore"] = Field(description="which kind of judge this is")
    model: str = Field(description="folder of a merged judge, a hub id, or `pocket` for the judge of the pocket world")
    family: Literal["auto", "qwen2_5_vl", "qwen3_vl"] = Field(
        "auto", description="how images are introduced in the prompt; auto reads it from the model's config.json"
    )
    prompts: Literal["editscore"] | Path | None = Field(
        None,
        description="YAML file with the two questions; none is ours; `editscore`: the published ones, out of the "
        "package of that name where it is installed",
    )
    order: Literal["images_first", "words_first"] = Field(
        "images_first",
        description="images before the question, as EditScore is trained and published, or after it, so that all "
        "edits of a source share words and source; ask judge-bench whether your judge scores alike",
    )
    reasoning_characters: PositiveInt | None = Field(
        None, description="longest reasoning that the answer's schema allows; none leaves it to sampling.max_tokens"
    )
    scoring: Literal["text", "logits"] = Field(
        "text",
        description="marks written as text after a reasoning, or expected from the chances of one token each, with no "
        "text written: four questions an edit, on ten levels",
    )
    logits: LogitsConfig = LogitsConfig()

    @model_validator(mode="after")
    def _logits_are_read_once(self) -> Self:
        if self.scoring == "logits":
            for name, value, plain in (
                ("prompts", self.prompts, None),
                ("order", self.order, "images_first"),
                ("reasoning_characters", self.reasoning_characters, None),
                ("sampling.passes", self.sampling.passes, 1),
            ):
                if value != plain:
                    raise ValueError(f"scoring: logits has no use for {name} = {value}; {_OF_TEXT[name]}")
        elif self.logits != LogitsConfig():
            raise ValueError("logits is set, and scoring is text; set scoring: logits, or leave logits out")
        return self


class PairwiseConfig(ServedConfig):
    """A vision-language judge that is shown two edits at a time, as PVC-Judge is: which kept more of the source?"""

    asks_for_the_edit: ClassVar[bool] = False
    relative: ClassVar[bool] = True

    kind: Literal["pairwise"] = Field(description="which kind of judge this is")
    prompts: Path | None = Field(
        None, description="YAML file with the question in the form of PVC-Judge's; none is ours, about consistency"
    )
    comparisons: int = Field(
        6,
        ge=2,
        multiple_of=2,
        description="others that each candidate is compared with, in both orders; a group of no more than one more is "
        "compared all with all; an even number",
    )
    seed: int = Field(0, ge=0, description="of who is compared with whom, where not all are")


def _fault(url: str) -> str | None:
    """Return what makes a URL none of an API's, if anything does."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return f"is no URL ({error})"
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    if not host or port == 0 or any(char.isspace() or not char.isprintable() for char in url):
        return "names no host and port"
    if parts.query or parts.fragment:
        return "goes on after its path"
    return None
