# make demo, make test: each makes its own environment in .venv on first use.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
LOWEST := $(VENV)/lowest
# The first Python from 3.11 to 3.13 that can make a virtual environment.
FIND_PYTHON = for p in python3.11 python3.12 python3.13 python3; do \
	  $$p -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	    2>/dev/null && echo $$p && break; done
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo -n)
# $(call need,COMMAND,PACKAGE): installs a Debian package where that is permitted, else says so.
define need
@mkdir -p $(VENV); command -v $(1) >/dev/null || { echo "Installing $(2) (for $(1)) ..."; \
  { $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $(2); } >$(VENV)/apt.log 2>&1; \
  command -v $(1) >/dev/null || { echo "$(1) is missing: sudo apt-get install $(2)"; exit 1; }; }
endef

.PHONY: demo test slow test-cpus test-lowest lint learn distributed fuzz table docs tutorials \
  browser pacs bids verify-weights verify-physics bench bazel bazel-light dist install clean

demo: install
	@$(PYTHON) -m tools.demo

test: install lint
	$(call need,dciodvfy,dicom3tools)
	@$(PYTHON) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=10

# What the tests of the server's page are driven in; without it they are skipped.
browser:
	$(call need,chromedriver,chromium chromium-driver)

# The tests as other processors round: without oneDNN, then with what it does on AVX2. The second says
# nothing of bfloat16: TensorFlow asks the processor itself whether it has that, and oneDNN refuses it.
test-cpus: install
	@TF_ENABLE_ONEDNN_OPTS=0 $(PYTHON) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
	@ONEDNN_MAX_CPU_ISA=AVX2 $(PYTHON) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder \
	  -k "not bfloat16"

# The tests on the lowest version of each dependency that pyproject.toml states, in an environment of
# their own; `make test` has the newest.  One file: make test-lowest TESTS=tests/recipe_test.py
test-lowest: TESTS := tests
test-lowest: $(LOWEST)/.installed
	$(call need,dciodvfy,dicom3tools)
	@$(LOWEST)/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

$(LOWEST)/.installed: pyproject.toml | install
	@echo "Installing the lowest versions into $(LOWEST) ..."
	@rm -rf $(LOWEST)
	@$(PYTHON) -m pip install -qq --disable-pip-version-check "uv>=0.5"
	@$(PYTHON) -m venv $(LOWEST)
	@$(VENV)/bin/uv pip install -q --python $(LOWEST)/bin/python --resolution lowest-direct \
	  --prerelease disallow --editable ".[test]"
	@touch $@

lint: install
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check -q .
	@$(PYTHON) -m mypy

# Every model trains until it beats a baseline; writes docs/results.md and its pictures.
learn: install
	@$(PYTHON) -m pytest -q -s -m learn tests/tools/learn_test.py

# What takes a minute or so each: runs that are killed, or go on.
slow: install
	@$(PYTHON) -m pytest -q -m slow tests

# The DICOM node against Debian's Orthanc, which it installs: a minute or two.
pacs: install
	$(call need,/usr/sbin/Orthanc,orthanc orthanc-dicomweb)
	$(call need,dciodvfy,dicom3tools)
	@$(PYTHON) -m pytest -q -m slow tests/serving/orthanc_test.py

# BIDS derivatives by the validator, which runs without a network.
bids: install
	@$(PYTHON) -m pip install -qq --disable-pip-version-check "bids-validator-deno>=2"
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PYTHON) -m pytest -q -m slow tests/inference/bids_test.py

# Every model in two processes, against one; and one of two that is killed and started again.
distributed: install
	@$(PYTHON) -m pytest -q -m "distributed or not distributed" tests/distribution_test.py

# Thousands of damaged files of every kind, each beside a good one: minutes.
fuzz: install
	@$(PYTHON) -m pytest -q -s -m fuzz tests/fuzz_test.py

# The table of docs/datasets.md, from the registry.
table: install
	@$(PYTHON) -m tools.dataset_table

# The documentation as a site, build/site/index.html, without a network; fails on a broken link.
docs: install
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --quiet && echo "Wrote build/site/index.html"

# Runs the tutorials, and writes what they print into docs/tutorials: minutes.
tutorials: install
	@$(PYTHON) -m tools.tutorials

# Measures the shipped weights on real scans, which it fetches; writes their cards and the table of
# docs/pretrained.md, and fails where a figure is not as stated. BM3D makes the first run take half an hour.
verify-weights: install
	@$(PYTHON) -m pip install -qq --disable-pip-version-check --editable ".[verify]"
	@$(PYTHON) -m tools.verify_weights

# The operators and methods of reconstruction against ASTRA, ODL, FINUFFT, SigPy, deepinv (with which comes
# PyTorch, see `bench`) and CVXPY.
verify-physics: install
	@$(PYTHON) -m pip install -qq --disable-pip-version-check --editable ".[physics]"
	@$(PYTHON) -m pytest -q -m physics tests/physics/oracles

# Every table of docs/benchmarks.md, beside peers: less than half an hour on two quiet cores. PyTorch without
# CUDA: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make bench
bench: install
	@$(PYTHON) -m pip install -qq --disable-pip-version-check --editable ".[bench]"
	@$(PYTHON) -m benchmarks

# Every test under Bazel, one at a time; bazel-light: builds all, and runs what takes seconds.
bazel: BAZEL_ARGS := test //...
bazel-light: BAZEL_ARGS := test --test_tag_filters=light //...
bazel bazel-light: install
	$(call need,bazel,bazel-bootstrap)
	$(call need,dciodvfy,dicom3tools)
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bazel $(BAZEL_ARGS)
	@bazel shutdown

# The sdist and the wheel of a release, in dist/.
dist: install
	@rm -rf dist
	@$(PYTHON) -m hatchling build

install: $(STAMP)

$(STAMP): pyproject.toml
	@if [ ! -x $(PYTHON) ]; then \
	  found=$$($(FIND_PYTHON)); \
	  [ -n "$$found" ] || { echo "Python 3.11, 3.12 or 3.13 with venv is missing:" \
	    "sudo apt-get install python3-venv"; exit 1; }; \
	  echo "Making $(VENV) with $$($$found --version) ..."; \
	  $$found -m venv $(VENV); \
	fi
	@echo "Installing TensorFlow and the other packages into $(VENV): some minutes, once ..."
	@$(PYTHON) -m pip install -qq --disable-pip-version-check --editable ".[test]"
	@touch $@
	@echo "Installed."

clean:
	rm -rf $(VENV)
