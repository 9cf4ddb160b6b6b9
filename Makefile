# Every target sets up .venv by itself: `python3` and pip bootstrap uv, uv installs what requirements.lock pins.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
# Processes of `make figures`, of one thread each; on a larger machine, say `make figures JOBS=8`.
JOBS ?= 2
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)")
MEMBERS := $(sort $(wildcard packages/*))
STAMP := .venv/installed
# torch pins these itself where its build needs them; in the lock they would be gigabytes on a machine without a GPU.
TORCH_OWNS := cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
	nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
	nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton
OURS := reprise $(addprefix reprise-,circuits function-vectors interventions steering training zoo)
DIST := build/dist
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: figures test check lint types imports schemas format verify docs lock wheels dist notebooks clean

## Recompute every result of the tiny tier from the shipped models, redraw the figures, write the report.
figures: $(STAMP)
	$(BIN)/reprise run --all --tier tiny --jobs $(JOBS)
	$(BIN)/reprise figures --all --tier tiny --jobs $(JOBS)
	$(BIN)/reprise report

test: $(STAMP)
	$(BIN)/pytest

check: lint types imports schemas test

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

schemas: $(STAMP)
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
		$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format --force-filetype yaml CITATION.cff
	$(BIN)/reprise list --json > /dev/null

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## Compare what a run measures here with the committed verdicts; fails when a supported claim no longer is.
verify: $(STAMP)
	$(BIN)/reprise verify --all --tier tiny

## Build the documentation site from the docstrings, READMEs and docs/: build/docs/index.html, which needs no server.
docs: $(STAMP)
	$(BIN)/sphinx-build -W --keep-going -q -c docs -d build/docs-cache . build/docs

lock:
	$(BIN)/uv pip compile --universal --no-header --no-annotate --python-version 3.11 --upgrade \
		$(addprefix --no-emit-package ,$(TORCH_OWNS) $(OURS)) \
		$(addsuffix /pyproject.toml,$(MEMBERS)) --group pyproject.toml:dev -o requirements.lock

## A release in build/dist: source archives and wheels, and the models and data as reprise-shared-VERSION.tar. The same
## commit gives the same bytes: uv_build writes no times, git that of the commit. Weights gain little from compression.
dist: wheels
	git archive --format=tar --prefix=shared/ --add-file=LICENSE --prefix= --output=$(DIST)/reprise-shared-$(VERSION).tar \
		HEAD shared

wheels: $(STAMP)
	$(BIN)/uv build --quiet --all-packages --clear --no-create-gitignore --out-dir $(DIST)

## The tutorials of docs/tutorials as executed notebooks in build/notebooks.
notebooks: $(patsubst docs/tutorials/%.md,build/notebooks/%.ipynb,$(wildcard docs/tutorials/*.md))

build/notebooks/%.ipynb: docs/tutorials/%.md $(STAMP)
	mkdir -p $(@D)
	$(BIN)/jupytext --quiet --to ipynb --output $@.partial.ipynb $<
	PYTHONWARNINGS="ignore:IProgress" $(BIN)/jupyter-execute --inplace $@.partial.ipynb
	mv $@.partial.ipynb $@

$(STAMP): requirements.lock pyproject.toml $(addsuffix /pyproject.toml,$(MEMBERS))
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "uv==$(UV_VERSION)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(FIND_LINKS) -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(addprefix -e ,$(MEMBERS))
	touch $@

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
