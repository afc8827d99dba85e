from pathlib import Path

import pytest
from pydantic import ValidationError

from deploy.configs import load_config
from rc_grpo.config import EditScoreConfig, ServerConfig
from reward_service import pocket_judge
from reward_service.asking.transport import IDLE_S
from reward_service.factory import check_judge, family, prompts
from reward_service.folders.judge_folder import JudgeFolderError
from reward_service.judge import JudgeSetupError
from reward_service.prompts import DEFAULT_PROMPTS, PromptError, Prompts
from reward_service.vllm_server import VllmServer


def server(tmp_path: Path, *, on_gpu: bool = False, **settings: object) -> VllmServer:
    config = ServerConfig.model_validate(settings)
    return VllmServer("reward-0", "some/model", "judge", config, tmp_path, on_gpu=on_gpu)


def value(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_a_gpu_server_is_started_as_configured(tmp_path: Path) -> None:
    configured = {"tensor_parallel": 2, "gpu_memory_utilization": 0.8, "max_num_seqs": 128, "max_model_len": 2048}
    command = server(tmp_path, on_gpu=True, arguments=("--mm-processor-cache-gb", "8"), **configured).command(1234)
    assert value(command, "--tensor-parallel-size") == "2"
    assert value(command, "--gpu-memory-utilization") == "0.8"
    assert value(command, "--max-num-seqs") == "128"
    assert value(command, "--max-model-len") == "2048"
    assert (value(command, "--host"), value(command, "--port")) == ("127.0.0.1", "1234")
    assert command[-2:] == ["--mm-processor-cache-gb", "8"]
    assert "--enforce-eager" not in command
    assert "--trust-remote-code" not in command


def test_float8_weights_are_for_servers_on_gpus(tmp_path: Path) -> None:
    assert value(server(tmp_path, on_gpu=True, quantization="fp8").command(1), "--quantization") == "fp8"
    assert "--quantization" not in server(tmp_path, on_gpu=True).command(1)
    on_cpu = {"kind": "editscore", "model": "pocket", "server": {"quantization": "fp8"}}
    with pytest.raises(ValidationError, match=r"server\.quantization = fp8 but resources\.num_gpus = 0"):
        EditScoreConfig.model_validate(on_cpu)
    EditScoreConfig.model_validate(on_cpu | {"resources": {"num_gpus": 1}})


def test_memory_for_keys_and_values_is_said_where_others_share_the_gpu(tmp_path: Path) -> None:
    command = server(tmp_path, on_gpu=True, kv_cache_gib=1.5).command(1)
    assert value(command, "--kv-cache-memory-bytes") == str(3 * 2**29)
    assert "--kv-cache-memory-bytes" not in server(tmp_path, on_gpu=True).command(1)
    # A packaged judge's is no obstacle to trying it on the CPU.
    assert "--kv-cache-memory-bytes" not in server(tmp_path, kv_cache_gib=1.5).command(1)


@pytest.mark.parametrize("name", ["flux_kontext_dev", "flux_kontext_dev_one_gpu", "flux2_klein_4b_one_gpu"])
def test_packaged_servers_that_share_a_gpu_say_it(name: str) -> None:
    judge = load_config(name).reward.judges["editscore"]
    assert isinstance(judge, EditScoreConfig)
    assert 0 < judge.resources.num_gpus < 1
    assert judge.server.kv_cache_gib is not None


@pytest.mark.parametrize(
    "cache", [[], ["--mm-processor-cache-gb", "4"], ["--mm-processor-cache-gb=0", "--mm-processor-cache-gb=1"]]
)
def test_a_server_that_keeps_images_is_never_put_to_sleep(cache: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="--enable-sleep-mode beside vLLM's cache of images"):
        server(tmp_path, arguments=("--enable-sleep-mode", *cache))
    server(tmp_path, arguments=("--enable-sleep-mode", "--mm-processor-cache-gb", "0"))


def test_a_gpu_servers_small_operations_take_no_cores_of_its_serving_unless_it_is_told_so(tmp_path: Path) -> None:
    assert server(tmp_path, on_gpu=True).environment()["OMP_NUM_THREADS"] == "1"
    told = server(tmp_path, on_gpu=True, environment={"OMP_NUM_THREADS": "8"})
    assert told.environment()["OMP_NUM_THREADS"] == "8"


def test_a_gpu_servers_engine_does_not_import_again_what_the_server_has_unless_it_is_told_so(tmp_path: Path) -> None:
    variable = "VLLM_WORKER_MULTIPROC_METHOD"
    assert server(tmp_path, on_gpu=True).environment()[variable] == "fork"
    assert variable not in server(tmp_path).environment()
    assert server(tmp_path, on_gpu=True, environment={variable: "spawn"}).environment()[variable] == "spawn"


def test_the_client_lets_go_of_idle_connections_before_the_server(tmp_path: Path) -> None:
    assert float(server(tmp_path).environment()["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]) > IDLE_S


def test_a_cpu_server_reads_prompts_in_one_piece(tmp_path: Path) -> None:
    command = server(tmp_path).command(1)
    assert {"--enforce-eager", "--no-enable-chunked-prefill"} <= set(command)
    assert "--gpu-memory-utilization" not in command


def test_another_python_starts_the_server_without_this_one_s_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    other = server(tmp_path, python=Path("/venvs/vllm/bin/python"), environment={"EXTRA": "1"})
    assert other.command(1)[0] == "/venvs/vllm/bin/python"
    assert "PYTHONPATH" not in other.environment()
    assert other.environment()["EXTRA"] == "1"
    assert server(tmp_path).environment()["PYTHONPATH"] == "/ours"


def test_every_server_has_a_key_of_its_own_that_only_its_environment_holds(tmp_path: Path) -> None:
    first, second = server(tmp_path), server(tmp_path)
    assert first.api_key != second.api_key
    assert first.environment()["VLLM_API_KEY"] == first.api_key
    assert first.api_key not in " ".join(first.command(1))


def judge(model: str, **settings: object) -> EditScoreConfig:
    return EditScoreConfig.model_validate({"kind": "editscore", "model": model, **settings})


def test_the_pocket_judge_comes_with_its_family_and_its_words() -> None:
    assert family(judge("pocket")) == "qwen2_5_vl"
    assert prompts(judge("pocket")) == Prompts.load(pocket_judge.PROMPTS_PATH)
    assert prompts(judge("other")) == Prompts.load(DEFAULT_PROMPTS)
    check_judge("editscore", judge("pocket"))


def test_what_is_wrong_with_a_judge_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JudgeSetupError, match="merge-judge BASE ADAPTER judges/none"):
        check_judge("j", judge("judges/none"))
    with pytest.raises(JudgeFolderError):
        check_judge("j", judge(str(tmp_path), family="qwen3_vl"))
    with pytest.raises(PromptError, match=r"mine\.yaml"):
        check_judge("j", judge("pocket", prompts=tmp_path / "mine.yaml"))
    monkeypatch.delenv("RC_GRPO_JUDGE_KEY", raising=False)
    with pytest.raises(JudgeSetupError, match=r"\$RC_GRPO_JUDGE_KEY"):
        check_judge("j", judge("pocket", urls=("http://x/v1",)))
