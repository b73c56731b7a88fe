# Two commands on a fresh machine: `make picture` and `make test`.
PYTHON ?= python3
BASE := .venv-base
DEV := .venv

.PHONY: picture test test-all check docs site dist screenshots browser clean

picture: $(BASE)/ready  ## draw a picture with the embedded model; the base package alone is installed
	$(BASE)/bin/vinograph generate "a red house on a snowy hill at night" --seed 7 --output house.png

test: $(DEV)/ready browser  ## everything that the tests need, then all checks and tests
	$(DEV)/bin/python scripts/check.py

test-all: $(DEV)/ready browser  ## the same with the long tests: more fuzzing, pictures of full size
	$(DEV)/bin/python scripts/check.py --all

check: $(DEV)/ready  ## formatting, linting and types alone
	$(DEV)/bin/python scripts/check.py --static

docs: $(DEV)/ready  ## write the generated pages again, and the signatures of the calls
	$(DEV)/bin/python -m scripts.call_signatures
	$(DEV)/bin/python -m scripts.api_docs
	$(DEV)/bin/python -m scripts.cli_docs
	$(DEV)/bin/python -m scripts.family_docs

site: $(DEV)/ready  ## build the documentation site in site; index.html opens in a browser as it is
	NO_MKDOCS_2_WARNING=1 $(DEV)/bin/python -m mkdocs build --strict

dist:  ## build the wheel and the source distribution, and try both in clean environments
	$(PYTHON) -m scripts.dist

screenshots: $(DEV)/ready browser  ## take the pictures of the page in docs again
	$(DEV)/bin/python -m scripts.web_screenshots

browser: $(DEV)/ready  ## Chromium for the page's tests, by apt where it is missing
	$(DEV)/bin/python scripts/browser.py

$(BASE)/ready: pyproject.toml
	$(PYTHON) -m venv $(BASE)
	$(BASE)/bin/python -m pip install --quiet --editable .
	touch $@

# torch is pinned, so that pip takes the build that the tests were written with.
$(DEV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(DEV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[train,quantize,dev]"
	touch $@

clean:
	rm -rf $(BASE) $(DEV) build dist .mypy_cache .ruff_cache .pytest_cache
