# `make train` and `make test` are all that a fresh machine needs: both set up .venv first.
SHELL := bash -o pipefail
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TORCH := torch==2.13.0+cpu
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# What these ask for beside themselves holds back protobuf and Pillow; to log, they need no more than this.
TRACKERS := swanlab pyecharts prettytable simplejson pyroaring orjson trackio gradio_client
RUN ?= pocket-$(shell date +%Y%m%d-%H%M%S)
ARGS ?=
# The shell's EDITOR is somebody's text editor: only the one named to make counts.
POCKET_EDITOR := $(if $(filter command,$(origin EDITOR)),$(EDITOR))
JUNIT := build/junit

export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup train test test-all lane-of-clusters lane-of-one-process lint unit docs map browser integration series chaos fuzz pocket judge benchmark judge-benchmarks loop-benchmarks ablation ablation-gpu dashboards evaluate-scale gpu gpu-families gpu-cluster gpu-judge gpu-peers gpu-prefix wheel clean-install audit lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

setup: $(INSTALLED) ## create .venv with everything for the CPU

# The CPU build of torch first and by name: an unpinned torch would pull gigabytes of CUDA. Where pip already knows a place
# that has it, that one is taken; else PyTorch's own index; else (macOS) the plain wheel is the CPU build.
# What vLLM's CPU build brings along that cannot load beside a CPU torch goes, and torchvision is made importable.
$(INSTALLED): pyproject.toml requirements/cpu.txt requirements/torchvision_cpu.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null \
	  || $(BIN)/pip install -q '$(TORCH)' \
	  || $(BIN)/pip install -q --index-url $(TORCH_INDEX) '$(TORCH)' \
	  || $(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -c requirements/cpu.txt -e '.[cpu,judge-cpu,dev]'
	$(BIN)/pip install -q --no-deps -c requirements/cpu.txt $(TRACKERS)
	$(BIN)/pip uninstall -q -y torchaudio torchcodec triton
	$(BIN)/python requirements/torchvision_cpu.py
	touch $@

train: $(INSTALLED) ## a real post-training of the pocket editor on this machine's CPU; JUDGE=vllm: judged by a vLLM server; EDITOR=klein: of the second one
	$(if $(and $(POCKET_EDITOR),$(JUDGE)),$(error EDITOR=$(POCKET_EDITOR) and JUDGE=$(JUDGE) do not go together: leave one out))
	$(BIN)/rc-grpo train pocket$(if $(POCKET_EDITOR),_$(POCKET_EDITOR))$(if $(JUDGE),_$(JUDGE)) --set name=$(RUN) $(ARGS)

# Two lanes at once: a cluster's processes wait for each other a third of the time, and one process of pure computing fits
# between them. The cluster's is the longer: it goes first. Whatever fails in one, the other goes on to its end.
test: $(INSTALLED) ## everything that CI runs, in two lanes; ends with the ten slowest tests
	$(MAKE) --no-print-directory -k -j2 lane-of-clusters lane-of-one-process; ended=$$?; \
	  $(BIN)/python -m tests.slowest $(JUNIT)/*.xml; exit $$ended

test-all: ## `make test` with the tests marked slow, of which the gate keeps cheaper witnesses
	PYTEST_ADDOPTS="-m 'not chaos'" $(MAKE) test

lane-of-clusters:
	RAY_worker_niceness=0 $(MAKE) --no-print-directory -j1 integration 2>&1 | sed -u 's/^/cluster | /'

lane-of-one-process:
	nice -n 15 $(MAKE) --no-print-directory -k -j1 lint unit browser PROCESSES=0 2>&1 | sed -u 's/^/quick   | /'

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

PROCESSES ?= 2
unit: $(INSTALLED) ## fast tests, no cluster, on two cores
	$(BIN)/pytest tests/unit -n $(PROCESSES) --dist loadfile --junitxml=$(JUNIT)/unit.xml $(ARGS)

docs: $(INSTALLED) ## the documentation's pages, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

map: $(INSTALLED) ## draw the house from the imports: docs/diagrams/house.svg
	$(BIN)/python docs/hooks/house_map.py

browser: $(INSTALLED) ## pages in a real headless Chromium (Debian: apt-get install chromium; elsewhere CHROMIUM=/path)
	$(BIN)/pytest tests/browser --junitxml=$(JUNIT)/browser.xml $(ARGS)

fuzz: $(INSTALLED) ## mutated inputs of strangers against every reader, ten minutes each, none in the gate; writes benchmarks/results/fuzz.json
	nice -n 10 $(BIN)/python -m tests.fuzz $(ARGS)

integration: $(INSTALLED) ## tests on a real local Ray cluster
	$(BIN)/pytest tests/integration --junitxml=$(JUNIT)/integration.xml $(ARGS)

series: $(INSTALLED) ## record the series of `make train` anew, after a change that is meant to move numbers
	$(BIN)/python -m tests.integration.series

chaos: $(INSTALLED) ## long failure tests and runs under kill -9 on a real local Ray cluster; writes benchmarks/results/chaos*
	$(BIN)/pytest tests -m chaos --timeout 600 --junitxml=benchmarks/results/chaos_tests.xml $(ARGS)
	$(BIN)/python -m benchmarks.chaos

TRAIN_POCKET := $(BIN)/python -m rc_grpo.pocket.train $(if $(POCKET_EDITOR),--editor $(POCKET_EDITOR))
TRAINED := build/pocket$(if $(POCKET_EDITOR),_$(POCKET_EDITOR))
WEIGHTS := rc_grpo/pocket/$(if $(POCKET_EDITOR),$(POCKET_EDITOR)_)model
SCORES := docs/pocket$(if $(POCKET_EDITOR),/$(POCKET_EDITOR))
pocket: $(INSTALLED) ## train the pocket editor anew (GPU if there is one); EDITOR=klein: the second one
	$(BIN)/pip install -q -c requirements/cpu.txt -e '.[pocket]'
	$(TRAIN_POCKET) --part vae --out $(TRAINED) --batch 64 --rate 1e-3 $(ARGS)
	$(TRAIN_POCKET) --part flow --out $(TRAINED) --vae $(TRAINED) $(ARGS)
	$(TRAIN_POCKET) --part model --out $(TRAINED) --vae $(TRAINED) --start $(TRAINED)
	rm -rf $(WEIGHTS) && cp -r $(TRAINED)/model $(WEIGHTS)
	mkdir -p $(SCORES) && cp $(TRAINED)/scores.json $(TRAINED)/heldout_edits.png $(SCORES)/

benchmark: $(INSTALLED) ## measure the pocket training; writes benchmarks/results/pocket_train.json
	$(BIN)/python -m benchmarks.pocket_train $(ARGS)

judge-benchmarks: $(INSTALLED) ## measure the pocket judge, its server and a training by it; writes three files in benchmarks/results
	$(BIN)/python -m benchmarks.pocket_judge
	$(BIN)/python -m benchmarks.judge_throughput
	$(BIN)/python -m benchmarks.judge_loop

loop-benchmarks: $(INSTALLED) ## measure the loop itself: publication, overhead, overlap of 256 workers, memory; writes four files
	$(BIN)/python -m benchmarks.loop_simulation
	$(BIN)/python -m benchmarks.loop_overhead
	$(BIN)/python -m benchmarks.publish
	$(BIN)/python -m benchmarks.memory

ablation: $(INSTALLED) ## the method's parts one by one, five seeds each: hours on two cores; ARGS="--processes 16 --set editor.device=cuda"
	$(BIN)/python -m benchmarks.ablation train --out build/ablation $(ARGS)
	$(BIN)/python -m benchmarks.ablation explore --out build/ablation
	$(BIN)/python -m benchmarks.ablation summarise build/ablation

# Sixteen runs or fewer share a card, and launch small kernels: NVIDIA's MPS lets them run at once
# (`nvidia-cuda-mps-control -d` before, `echo quit | nvidia-cuda-mps-control` after).
# It runs in whatever Python has CUDA: `make ablation-gpu GPU_PYTHON=python3`.
GPU_PYTHON ?= $(BIN)/python
LONG ?= build/ablation-gpu
ablation-gpu: ## on GPUs: the rivals' algorithms as arms and three worlds, five seeds each; ARGS="--processes 45"
	$(GPU_PYTHON) -m benchmarks.ablation damage --out $(LONG) --set editor.device=cuda
	$(GPU_PYTHON) -m benchmarks.ablation train-long --out $(LONG) --set editor.device=cuda $(ARGS)
	$(GPU_PYTHON) -m benchmarks.ablation summarise-long $(LONG)

dashboards: $(INSTALLED) ## Ray's dashboard in a browser and our panels out of Prometheus, during a submitted job; pictures into docs/dashboards
	DASHBOARD_SCREENSHOTS=docs/dashboards $(BIN)/pytest tests/browser/test_dashboards.py -m chaos

evaluate-scale: $(INSTALLED) ## CompBench's evaluator on 2,465 examples, killed and resumed; writes benchmarks/results/evaluate_scale.json
	$(BIN)/python -m benchmarks.evaluate_scale --steps 6

gpu: ## on a GPU: its tests, then FLUX.1 Kontext at full size measured; writes benchmarks/results/gpu_*.json
	$(GPU_PYTHON) -m pytest tests/gpu --show-capture=no $(ARGS)
	$(GPU_PYTHON) -m benchmarks.gpu.precompile
	for part in rollout acd update swap whole; do $(GPU_PYTHON) -m benchmarks.gpu.$$part || exit 1; done

gpu-families: ## the other families at full size on a GPU, and a whole run of each (on two, if there are); writes benchmarks/results/gpu_families.json
	$(GPU_PYTHON) -m benchmarks.gpu.precompile --families
	$(GPU_PYTHON) -m benchmarks.gpu.families $(ARGS)

gpu-prefix: ## Qwen-Image-2.1's text and source computed once, against not, and stock, on a GPU; writes benchmarks/results/gpu_prefix.json
	$(GPU_PYTHON) -m benchmarks.gpu.prefix $(ARGS)

GPUS ?= 2
gpu-cluster: ## the whole system on GPUS=2 GPUs (or 4, 8), with kills; writes benchmarks/results/gpu_cluster.json and docs/gpu_cluster
	$(GPU_PYTHON) -m benchmarks.gpu.cluster --gpus $(GPUS) $(ARGS)

gpu-peers: ## flow_grpo's and Flow-Factory's own Kontext code beside ours on one GPU (their code: python -m benchmarks.gpu.peers.sources); writes benchmarks/results/gpu_peers.json
	$(GPU_PYTHON) -m benchmarks.gpu.peers $(ARGS)

gpu-judge: ## the judge's server with seven billion random parameters on a GPU; writes benchmarks/results/gpu_judge.json
	$(GPU_PYTHON) -m benchmarks.gpu.judge $(ARGS)

judge: $(INSTALLED) ## train the pocket judge anew (GPU if there is one)
	$(BIN)/python -m reward_service.pocket_judge.train --out build/judge $(ARGS)
	rm -rf reward_service/pocket_judge/model && cp -r build/judge/model reward_service/pocket_judge/model
	cp build/judge/scores.json docs/pocket/judge_scores.json

wheel: $(INSTALLED) ## the wheel, into build/dist
	rm -rf build/dist build/lib build/bdist.*
	$(BIN)/pip wheel -q --no-deps --no-build-isolation -w build/dist .

clean-install: wheel ## the wheel in a new environment: installed, trained with from an empty folder
	PYTHON=$(PYTHON) tests/clean_install.sh build/dist/*.whl requirements/cpu.txt '$(TORCH)' $(TORCH_INDEX)

# In an environment of its own: what it wants must not change what is checked. Strict: a package that the database cannot be
# asked about is a failure, and not a pass. The CPU build of torch is known there without its suffix.
audit: ## known vulnerabilities of the pinned packages, by pip-audit; asks PyPI's database
	test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/pip install -q pip-audit; }
	sed 's/+cpu$$//' requirements/cpu.txt > build/audit/requirements.txt
	build/audit/bin/pip-audit --strict --no-deps --disable-pip -r build/audit/requirements.txt $(ARGS)

lock: $(INSTALLED) ## write requirements/cpu.txt from what is installed
	mkdir -p build && { head -1 requirements/cpu.txt; $(BIN)/pip freeze --exclude-editable; } > build/cpu.txt && mv build/cpu.txt requirements/cpu.txt

clean: ## remove caches and the virtual environment, keep runs/
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
