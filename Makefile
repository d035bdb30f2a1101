# `make help` says what there is. PYTHON picks the interpreter, PROFILE (ci, class, full) the size of the notebooks' runs.
PROFILE ?= ci
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The first interpreter that is new enough; a command that is only a stand-in for a missing version fails the question.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo $$p; break; }; done)
endif

.PHONY: help env book test test-book check demo table notebooks clean distclean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

env: $(STAMP)  ## create .venv from pinned versions (about 3 GB to download, 6 GB on disk)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Install one, or say where it is: make env PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "Python 3.11 or newer is needed, but $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make env PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo "Creating $(VENV) with $$($(PYTHON) --version)"; rm -rf $(VENV); $(PYTHON) -m venv $(VENV); } || { \
	  rm -rf $(VENV); echo "$(PYTHON) cannot create environments; on Debian and Ubuntu, install the package python3-venv" >&2; exit 1; }
	@echo "Installing the pinned packages; this takes some minutes the first time"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[book,test,published]'
	@$(BIN)/python -m leader_nb.lpips_weights alex || echo "No LPIPS weights for now (no network?). They are fetched again on first use; all else works without."
	@touch $@

book: env  ## execute the notebooks, build the book into _build/html and look it over
	$(BIN)/python scripts/book.py --profile $(PROFILE)
	$(BIN)/python scripts/check_book.py

test-book: env  ## look over the book that was built last
	$(BIN)/python scripts/check_book.py

test: env  ## every test, and every notebook run again and compared
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest --nbval-lax -p no:cacheprovider notebooks

check: env  ## style, types and the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m 'not slow' -x

demo: env  ## restore a built-in photograph with and without LEADer
	$(BIN)/leader-nb demo

table: env  ## every row of the big table, from the photographs in IMAGES (hours; resumable)
	$(BIN)/python scripts/big_table.py --images '$(IMAGES)'

notebooks: env  ## rebuild the tracked notebooks from their text twins
	$(BIN)/python scripts/notebooks.py --profile $(PROFILE)

clean:  ## remove what was built, but keep .venv
	rm -rf _build leader-nb-demo .pytest_cache .ruff_cache .mypy_cache .hypothesis

distclean: clean  ## remove .venv too
	rm -rf $(VENV) *.egg-info
