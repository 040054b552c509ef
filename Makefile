# Every target installs what it needs into this folder first.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The solver multiplies small matrices: threads for them cost more than they give.
export OPENBLAS_NUM_THREADS := 1
PRODUCT := spotopt audit accounts clusters mlregistry policies hibernation agentapi simulator
# Compiled once at installation, because several processes import them at the same moment.
IMPORTED_AT_START := amqp anyio asgiref boto3 botocore celery channels channels_redis cryptography django \
  django_celery_beat django_filters django_structlog drf_spectacular h11 highspy httpcore httpx jinja2 kombu kr8s \
  moto numpy psutil psycopg2 redis requests rest_framework rest_framework_simplejwt responses structlog urllib3 \
  uvicorn websockets werkzeug yaml
SPEED ?= 10
PORT ?= 8000
SEED ?= 1

.PHONY: run test check smoke bench bench-packing bench-cases bench-interruptions bench-replay bench-agents chaos format install browser clean

run: install ## Start everything on this machine, against a simulated AWS
	@$(BIN)/python manage.py up --speed $(SPEED) --port $(PORT)

test: check browser ## Static checks and every test
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

check: install ## Format, lint, types, layers, templates, migrations, deployment
	ruff format --check .
	ruff check .
	mypy $(PRODUCT)
	lint-imports
	djlint --check --lint templates
	python -W ignore manage.py makemigrations --check --dry-run
	@source spotopt/tests/production.env && python manage.py check --deploy --fail-level WARNING

smoke: install ## Drive a fresh instance through the public API and compare it with the simulator's records
	$(BIN)/python -m spotopt.tests.smoke $(ARGS)

chaos: install ## Optimize many clusters under faults; RUNS=, SEED=; BREAK=name, or all, takes safeguards out
	$(BIN)/python -m spotopt.tests.chaos --seed $(SEED) $(if $(RUNS),--runs $(RUNS)) $(if $(BREAK),--break $(BREAK))

bench: install ## Measure, beside a reference in the same run
	$(BIN)/python -m spotopt.bench $(ARGS)

bench-packing: install ## Pack real workloads; cost against proven bounds
	$(BIN)/python -m spotopt.bench.packing $(ARGS)

bench-cases: install ## Play 10,000 generated clusters against the laws of plans
	$(BIN)/python -m spotopt.bench.cases $(ARGS)

bench-interruptions: install ## Take 50 of 300 spot nodes away at once, then signal rebalances for 200
	$(BIN)/python -m spotopt.tests.interruptions $(ARGS)

bench-replay: install ## Live a recorded week of spot outages under three policies
	$(BIN)/python -m spotopt.bench.replay $(ARGS)

bench-agents: install ## What the agents' road carries, beside a bare handler
	$(BIN)/python -m spotopt.bench agents

format: install ## Format the code and the templates
	ruff format .
	ruff check --fix --quiet .
	-djlint --reformat --quiet templates

install: $(VENV)/installed node_modules/installed

$(VENV)/installed: requirements-dev.txt
	@echo "Installing Python packages into $(VENV)…"
	@test -x $(BIN)/python || $$(command -v $(PYTHON) || command -v python3) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements-dev.txt
	@cd $(VENV)/lib/python3*/site-packages && $(CURDIR)/$(BIN)/python -m compileall -q -j 2 $(IMPORTED_AT_START)
	@touch $@

node_modules/installed: package-lock.json $(VENV)/installed
	@echo "Installing UI assets into node_modules…"
	@$(BIN)/npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

browser: install ## Find a Chromium, or install one
	@$(BIN)/python -m spotopt.tests.e2e.browser

clean: ## Remove the data of `make run` and of the tests
	rm -rf .spotopt
