# Every target sets up .venv by itself: `python3` and pip bootstrap uv, uv installs what requirements.lock pins.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
FIND_LINKS := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)")
MEMBERS := $(sort $(wildcard packages/*))
STAMP := .venv/installed
# torch pins these itself where its build needs them; in the lock they would be gigabytes on a machine without a GPU.
TORCH_OWNS := cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
	nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
	nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton
OURS := reprise $(addprefix reprise-,circuits function-vectors interventions steering training zoo)

.PHONY: figures test check lint types imports schemas format verify lock clean

## Recompute every result of the tiny tier from the shipped models, redraw the figures, write the report.
figures: $(STAMP)
	$(BIN)/reprise run --all --tier tiny
	$(BIN)/reprise figures --all --tier tiny
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

lock:
	$(BIN)/uv pip compile --universal --no-header --no-annotate --python-version 3.11 --upgrade \
		$(addprefix --no-emit-package ,$(TORCH_OWNS) $(OURS)) \
		$(addsuffix /pyproject.toml,$(MEMBERS)) --group pyproject.toml:dev -o requirements.lock

$(STAMP): requirements.lock pyproject.toml $(addsuffix /pyproject.toml,$(MEMBERS))
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "uv==$(UV_VERSION)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(FIND_LINKS) -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(addprefix -e ,$(MEMBERS))
	touch $@

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
