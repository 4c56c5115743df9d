# make run    set up everything and open the dashboard on http://localhost:8501 (PORT=, ASSAY_HOME= are honoured;
#             HOST= other than this machine needs sign-in, see the README)
# make test   set up everything and run lint and all tests
# make lm-eval  add lm-evaluation-harness, an optional extra: benchmarks on the Compare page
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 8501
HOST ?= 127.0.0.1
ASSAY_HOME ?= ./workspace
BIN := .venv/bin

.PHONY: run test setup setup-dev browser lint lm-eval clean

run: setup
	@echo "Assay: http://localhost:$(PORT)  (store and jobs in $(ASSAY_HOME); Ctrl+C stops the dashboard, not the jobs)"
	@ASSAY_HOME="$(ASSAY_HOME)" $(BIN)/python -m streamlit run app.py --server.port $(PORT) --server.address $(HOST)

# Two at a time, by files in their order: the longest walks begin first. The others run with one thread each.
test: setup-dev browser lint
	$(BIN)/python -m pytest tests/browser --numprocesses 2 --dist loadfile --no-loadscope-reorder
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore tests/browser --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: .venv/installed
setup-dev: .venv/installed-dev

# The stamps hold when the requirements are unchanged, so a second call starts in seconds.
.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Assay needs Python 3.11 or newer; name one with PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements-dev.txt
	@touch $@

browser: setup-dev
	@$(BIN)/python -m tests.browser.find_chromium --install

lm-eval: setup
	$(BIN)/python -m pip install --disable-pip-version-check --quiet "$$(grep '^lm_eval==' requirements-dev.txt)"

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
