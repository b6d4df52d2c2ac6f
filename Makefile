# make demo    explain examples/coffee.png with the bundled model: a sheet and a page in demo/
# make test    run the tests, minutes     (PYTEST_ARGS="-k solve" for some)
# make test-all   the slow ones too: whole programs compiled by Inductor, all commands end to end
# make test-oldest   `test` with the oldest releases that pyproject.toml allows, in .venv-oldest
# make figures the paper's figures as far as weights are at hand, in docs/figures/; minutes
# make docs-figures   every other picture of README and docs, screenshots too (needs chromium, Graphviz)
# make viewer  the page of `naflow-fx report` from its source (needs npm); viewer-check: compares
# make bench   times, memory, correctness against other libraries: docs/benchmarks.md, on the CPU
# make bench-gpu   the same on a CUDA machine            (BENCH_ARGS="--full" for all of either)
# make gpu-check   whether all is right and fast on a CUDA machine: docs/gpu-check.md, 8 minutes;
#              by $(PYTHON) as it is, nothing is installed   (GPU_ARGS="--only 'maps*'" for some)
# make evaluate   how good the maps are: docs/evaluation.md, < 20 minutes; evaluate-full: hours
# make strangers  how networks of other packages fare: docs/strangers.md, an hour, in
#              .venv-strangers; what is in the table already stays (STRANGERS_ARGS="--again": all)
# make docs    the site, docs/ into build/docs: warnings are errors, notebooks are run (DOCS_ARGS=...)
# make tutorials   the notebooks of docs/tutorials alone, all anew; make docs shows what came out last
# make docs-links  whether what the site links to outside is there; needs a network
# make release-check   sdist and wheel, installed into an empty environment and used there; minutes
# make lint    ruff, its format, mypy
# Each makes .venv if there is none, and installs again only when pyproject.toml has changed.
# Choose the interpreter with PYTHON=python3.12, add options of pip with PIP_ARGS=...
# (test-oldest installs by uv, which reads UV_DEFAULT_INDEX and the like).

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
GPU_ARGS ?=
STRANGERS_ARGS ?=
DOCS_ARGS ?=
BIN := .venv/bin
OLDEST := .venv-oldest/bin

.PHONY: demo test test-all test-oldest figures docs-figures docs tutorials docs-links viewer viewer-check bench bench-gpu gpu-check evaluate evaluate-full strangers release-check lint clean
.DELETE_ON_ERROR:

DEMO := --methods naflow focused layercam --layers stem_act 'blocks.[02468].project_bn' \
  'blocks.1[02].project_bn' blocks.15.project_bn head_act

demo: .venv/.installed
	@mkdir -p demo
	$(BIN)/naflow-fx explain examples/coffee.png --out demo $(DEMO) > demo/explain.txt
	$(BIN)/naflow-fx report examples/coffee.png --out demo/coffee.html --small $(DEMO) > demo/report.txt
	@echo "$(CURDIR)/demo/coffee/rows.png: ten depths of a network that sees an espresso, three methods;"
	@echo "  points first, then spots, the whole cup last.  Play through all of them: $(CURDIR)/demo/coffee.html"
	@echo "Next, a photo and a network of yours: $(BIN)/naflow-fx explain --help"

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n auto -m "not slow" $(PYTEST_ARGS)

test-all: .venv/.installed-dev
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

# What old releases warn of by themselves is no error here.  Tests against other libraries, of Ray
# and of the page in a browser are skipped: those are not installed there.
test-oldest: .venv-oldest/.installed
	$(OLDEST)/python -m pytest -n auto -m "not slow" -W default $(PYTEST_ARGS)

figures: .venv/.installed-dev
	$(BIN)/python tools/figures.py

docs-figures: .venv/.installed-dev
	$(BIN)/python tools/docs_figures.py

docs: .venv/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html -d build/doctrees docs build/docs $(DOCS_ARGS)
	@echo "Open $(CURDIR)/build/docs/index.html"

tutorials: .venv/.installed-docs
	rm -rf build/notebooks
	$(BIN)/python -m sphinx -b dummy -E -d build/doctrees-tutorials -D root_doc=tutorials/index \
	  -D 'include_patterns=tutorials/**' -D suppress_warnings=myst.xref_missing docs build/tutorials

docs-links: .venv/.installed-docs
	$(BIN)/python -m sphinx -b linkcheck -d build/doctrees docs build/docs-links

viewer: naflow_fx/view/page/web/node_modules
	npm --prefix naflow_fx/view/page/web run build

viewer-check: naflow_fx/view/page/web/node_modules
	npm --prefix naflow_fx/view/page/web run check

naflow_fx/view/page/web/node_modules: naflow_fx/view/page/web/package-lock.json
	npm --prefix naflow_fx/view/page/web ci
	@touch $@

bench: .venv/.installed-bench
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

bench-gpu: .venv/.installed-bench
	$(BIN)/python -m benchmarks --device cuda $(BENCH_ARGS)

gpu-check:
	$(PYTHON) -m benchmarks.gpu_check --out docs/gpu-check $(GPU_ARGS)

evaluate: .venv/.installed-evaluate
	$(BIN)/python tools/evaluate.py

evaluate-full: .venv/.installed-evaluate
	$(BIN)/python tools/evaluate.py --full

strangers: .venv-strangers/.installed
	.venv-strangers/bin/python -m tools.strangers $(STRANGERS_ARGS)

release-check: .venv-release/.installed
	.venv-release/bin/python tools/release_check.py

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing into .venv, once; PyTorch is a large download"
	$(BIN)/python -m pip install $(PIP_ARGS) -e .
	@touch $@

# pip can't choose the oldest release that a requirement allows; uv can.
.venv-oldest/.installed: pyproject.toml
	@echo "Installing into .venv-oldest, once; PyTorch is a large download"
	$(PYTHON) -m venv --clear .venv-oldest
	$(OLDEST)/python -m pip install $(PIP_ARGS) uv
	UV_HTTP_TIMEOUT=300 $(OLDEST)/uv pip install --python $(OLDEST)/python \
	  --resolution lowest-direct --only-binary :all: -e ".[batch,lite,onnx,viz]"
	$(OLDEST)/uv pip install --python $(OLDEST)/python grad-cam hypothesis pytest pytest-xdist webdataset
	@touch $@

# Apart: some of these packages hold others back.
.venv-strangers/.installed: pyproject.toml
	@echo "Installing into .venv-strangers, once; PyTorch is a large download"
	$(PYTHON) -m venv .venv-strangers
	.venv-strangers/bin/python -m pip install $(PIP_ARGS) -e ".[strangers]"
	@touch $@

.venv-release/.installed:
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install $(PIP_ARGS) build twine
	@touch $@

.venv/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing into .venv, once; PyTorch is a large download"
	$(BIN)/python -m pip install $(PIP_ARGS) -e ".[dev]"
	@touch .venv/.installed $@

.venv/.installed-docs: pyproject.toml | $(BIN)/python
	@echo "Installing into .venv, once; PyTorch is a large download"
	$(BIN)/python -m pip install $(PIP_ARGS) -e ".[docs]"
	@touch .venv/.installed $@

.venv/.installed-bench: pyproject.toml | $(BIN)/python
	@echo "Installing into .venv, once; PyTorch is a large download"
	$(BIN)/python -m pip install $(PIP_ARGS) -e ".[bench]"
	@touch .venv/.installed .venv/.installed-dev $@

.venv/.installed-evaluate: pyproject.toml | $(BIN)/python
	@echo "Installing into .venv, once; PyTorch is a large download"
	$(BIN)/python -m pip install $(PIP_ARGS) -e ".[evaluate,onnx]"
	@touch .venv/.installed $@
