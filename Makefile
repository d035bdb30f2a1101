# `make help` says what there is. PYTHON picks the interpreter, PROFILE (ci, class, full) the size of the notebooks' runs.
PYTHON ?= python3
PROFILE ?= ci
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help env book test check demo notebooks clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /: /' | column -t -s ':'

env: $(STAMP)  ## create .venv from pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; found `$(PYTHON) --version 2>&1`. Try: make PYTHON=python3.12 env"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[book,test,published]'
	$(BIN)/python -m leader_nb.lpips_weights alex || echo "LPIPS backbone not fetched now; it is tried again when first used"
	touch $@

book: env  ## execute the notebooks and build the book into _build/html
	$(BIN)/python scripts/book.py --profile $(PROFILE)

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

notebooks: env  ## rebuild the tracked notebooks from their text twins
	$(BIN)/python scripts/notebooks.py --profile $(PROFILE)

clean:  ## remove what the other targets made, .venv included
	rm -rf _build $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
