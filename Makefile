# The things one does; CONTRIBUTING.md says more.
.PHONY: install format check test docs
ARGS ?=

install:
	python -m pip install -e '.[dev,train,eval,topic,docs]'
	python -m pip install pre-commit && pre-commit install

format:
	ruff check --fix .
	ruff format .

check:
	ruff format --check .
	ruff check .
	mypy
	bandit -q -r llava -ll

test:
	bash scripts/test.sh $(ARGS)

docs:
	mkdocs build --strict
