# Everything a contributor or a first-time user types. Each target sets up what it needs.
#
#   make serve    run the service on http://127.0.0.1:8000 with the models in models/
#   make test     all tests
#   make lint     ruff and mypy
#   make audit    known vulnerabilities of what is pinned, asked of PyPI; fails where that cannot be reached
#   make bench    throughput beside the plain ways, side by side in one run
#   make bench-peers  installs LitServe, BentoML and Ray Serve, which make bench then measures, too
#   make bench-workers  more load than three HTTP workers can serve; needs some sixteen processors
#   make scaling  what a million predictions cost, what is full first, how many replicas; some five minutes
#   make bench-page  how soon the page is there, and what drawing sends; needs Chromium
#   make bench-ray  throughput on Ray with one and two processes that compute
#   make ray-pool  a million rows scored on a cluster of two nodes, the run and one of its processes killed
#   make clients  installs KServe's client, and make perf-analyzer Triton's, which make test then tries
#   make container-test  builds the image without Docker and tries it; needs root on a Debian
#   make kill-store  servers that keep samples are killed twenty times on each database
#   make soak     a server under load for five minutes, every answer checked; SECONDS=3600 for an hour
#   make reload-loop  a model is loaded and unloaded two hundred times, and the memory has to stay flat
#   make fuzz     schemathesis and a fuzzer over every URL, for some ten minutes
#   make check-gpu  the tests and the engine's benchmark on a GPU
#   make train    train the shipped models again, from their seeds
#   make quality  their held-out quality, as in models/README.md
#   make evaluate DATA=dir  published results on public data, reproduced: benchmarks/evaluation/README.md
#   make screenshots  the pictures of the page in the README; needs Chromium
#   make active-learning DATA=dir  learning curves on MNIST of what chooses the labels, in the README
#
# Without a GPU, a much smaller PyTorch:
#   make serve PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_OPTIONS ?=
SECONDS ?= 300
VENV := .venv
INSTALL = $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet \
	--constraint constraints.txt $(PIP_OPTIONS)

# Peers live in environments of their own: what they pin would fight with what Candor does.
PEERS := .venv-peers
PEER_litserve := litserve==0.2.19
PEER_bentoml := bentoml==1.4.39
PEER_ray := ray[serve]==2.60.0
PEER_TORCH := torch==2.13.0 numpy==2.4.6

# Clients too large to install by default, or that not every system runs: perf-analyzer needs glibc 2.38.
CLIENTS := .venv-clients
CLIENT_kserve := kserve==0.21.0
CLIENT_perf_analyzer := perf-analyzer==2.60.0

.PHONY: serve test lint audit format bench bench-workers bench-page bench-peers bench-ray ray-pool scaling clients perf-analyzer container-test kill-store soak fuzz reload-loop check-gpu train quality needs-data evaluate active-learning screenshots clean

serve: $(VENV)/.installed
	@$(VENV)/bin/candor serve

# One process more than cores, up to four: some wait for the servers that they started.
test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest --dist loadfile --no-loadscope-reorder \
		--numprocesses $$($(VENV)/bin/python -c "import os; print(min(4, 1 + (os.cpu_count() or 1)))")

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

audit: $(VENV)/bin/python
	$(VENV)/bin/python .ci/audit.py

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/.installed-dev
	$(VENV)/bin/python -m benchmarks.engine --output benchmarks/results/engine.json
	$(VENV)/bin/python -m benchmarks.service --output benchmarks/results/service.json
	$(VENV)/bin/python -m benchmarks.overload --output benchmarks/results/overload.json
	$(VENV)/bin/python -m benchmarks.pools --output benchmarks/results/pools.json
	$(VENV)/bin/python -m benchmarks.render

# Three processes that speak HTTP beside the engine's, and six that send.
bench-workers: $(VENV)/.installed-dev
	CANDOR_DEVICE=cpu $(VENV)/bin/python -m benchmarks.overload --workers 3 --generators 6 \
		--output benchmarks/results/overload_workers.json
	$(VENV)/bin/python -m benchmarks.render

# In Chromium: CHROMIUM=path names one.
bench-page: $(VENV)/.installed-dev
	$(VENV)/bin/python -m benchmarks.page --output benchmarks/results/page.json
	$(VENV)/bin/python -m benchmarks.render

bench-peers: $(PEERS)/litserve/.installed $(PEERS)/bentoml/.installed $(PEERS)/ray/.installed
	@echo "make bench now measures them, too"

scaling: $(VENV)/.installed-dev
	$(VENV)/bin/python -m benchmarks.scaling --output benchmarks/results/scaling.json
	$(VENV)/bin/python -m benchmarks.render

bench-ray: $(VENV)/.installed-dev
	$(VENV)/bin/python -m benchmarks.ray --output benchmarks/results/ray.json
	$(VENV)/bin/python -m benchmarks.render

ray-pool: $(VENV)/.installed-dev
	RAY_ROWS=1000000 $(VENV)/bin/python -m pytest tests/e2e/test_ray.py -k table

clients: $(CLIENTS)/kserve/.installed
	@echo "make test now tries KServe's client, too"

perf-analyzer: $(CLIENTS)/perf_analyzer/.installed
	@echo "make test now runs Triton's perf_analyzer, too"

container-test: $(VENV)/.installed-dev
	PYTHON=$(VENV)/bin/python .ci/container

kill-store: $(VENV)/.installed-dev
	KILLS=20 $(VENV)/bin/python -m pytest tests/store/test_writer.py tests/e2e/test_sample_store_kills.py -k kill

# Exit status 1 where something does not hold; benchmarks/soak/__main__.py says what has to.
soak: $(VENV)/.installed-dev
	$(VENV)/bin/python -m benchmarks.soak --seconds $(SECONDS) --output benchmarks/results/soak.json
	$(VENV)/bin/python -m benchmarks.render

reload-loop: $(VENV)/.installed-dev
	RELOADS=200 $(VENV)/bin/python -m pytest -s tests/e2e/test_versions.py -k keeps_no_memory

# FUZZ_SEED=1 for other requests than those of seed 0.
fuzz: $(VENV)/.installed-dev
	FUZZ_REQUESTS=20000 FUZZ_EXAMPLES=100 $(VENV)/bin/python -m pytest tests/e2e/test_fuzz.py tests/e2e/test_openapi.py

# All that a GPU does otherwise, and the engine's benchmark on it.
check-gpu: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest tests/inference/test_recorded.py tests/e2e/test_gpu.py -rs
	$(VENV)/bin/python -m benchmarks.engine --device cuda --output benchmarks/results/engine_cuda.json

train: $(VENV)/.installed-dev
	for script in models/*/train.py; do $(VENV)/bin/python $$script || exit 1; done

quality: $(VENV)/.installed-dev
	$(VENV)/bin/python -m benchmarks.quality

# Says what is missing before anything is installed.
needs-data:
	@test -n "$(DATA)" || { echo "The evaluation reads data sets that the project does not ship: make $(or $(MAKECMDGOALS),evaluate) DATA=folder, and benchmarks/evaluation/README.md says what the folder must hold and where it comes from" >&2; exit 2; }

evaluate: needs-data $(VENV)/.installed-dev
	$(VENV)/bin/python -m benchmarks.evaluation --data "$(DATA)" --output benchmarks/results/evaluation.json
	$(VENV)/bin/python -m benchmarks.evaluation.report

active-learning: needs-data $(VENV)/.installed-dev
	$(VENV)/bin/python -m benchmarks.active_learning --data "$(DATA)" --output benchmarks/results/active_learning.json
	$(VENV)/bin/python -m benchmarks.render

screenshots: $(VENV)/.installed-dev
	$(VENV)/bin/python -m tests.e2e.screenshots

clean:
	rm -rf $(VENV) $(PEERS) $(CLIENTS) .venv-audit .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Candor needs Python 3.11 or newer; name one with make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV); the first time this takes a few minutes"
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV); the first time this takes a few minutes"
	$(INSTALL) --editable ".[dev]"
	@touch $@ $(VENV)/.installed

$(PEERS)/%/.installed: Makefile
	@echo "installing $(PEER_$*) into $(PEERS)/$*"
	$(PYTHON) -m venv $(PEERS)/$*
	$(PEERS)/$*/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_OPTIONS) \
		$(PEER_TORCH) "$(PEER_$*)"
	@touch $@

$(CLIENTS)/%/.installed: Makefile
	@echo "installing $(CLIENT_$*) into $(CLIENTS)/$*"
	$(PYTHON) -m venv $(CLIENTS)/$*
	$(CLIENTS)/$*/bin/python -m pip install --disable-pip-version-check --quiet "$(CLIENT_$*)"
	@touch $@
