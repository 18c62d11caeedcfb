# The commands of this project. LAB_RELEASE=bookworm, LAB_PREFIX=… and LAB_SUBNET=… change the lab.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help
help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

# The virtual environment is complete when its stamp is newer than the requirements.
.venv/complete: requirements.txt
	@echo "Installing the Python requirements (once)"
	@python3 -m venv --clear .venv
	@.venv/bin/pip install -qq --disable-pip-version-check --require-hashes --requirement requirements.txt
	@touch $@

.PHONY: demo
demo: .venv/complete  ## bring up the whole stack in the lab, verify it and print its address
	@lab/demo.sh

.PHONY: drill
drill: .venv/complete  ## break the lab's stack on purpose and report: DRILLS="lb-power 9", all by default
	@ansible-playbook -i inventories/lab playbooks/drill.yml -e '{"drills": "$(DRILLS)"}'

.PHONY: bench
bench: .venv/complete  ## measure on the lab: BENCH="repeat waf", all by default; see docs/operations.md
	@python bench/all.py $(BENCH)

.PHONY: down
down: .venv/complete  ## remove every trace of the lab
	@lab/down.sh

# Python programs whose names don't tell.
PROGRAMS := roles/haproxy/files/nospof-haproxy roles/keepalived/files/check-haproxy roles/keepalived/files/nospof-vrrp-notify \
	roles/repmgr/files/nospof-repmgr-notify \
	roles/waf/files/nospof-waf roles/waf/files/nospof-waf-log \
	roles/pgbouncer/files/nospof-pgbouncer

.PHONY: lint
lint: .venv/complete  ## all linters
	yamllint --strict .
	ruff check . $(PROGRAMS)
	ruff format --check . $(PROGRAMS)
	set -e; for program in $(PROGRAMS); do mypy $$program; done
	mypy collections/ansible_collections/nospof/stack/plugins
	mypy roles/repmgr/files/dbguard demo/storefront/storefront
	mypy drills/consistency drills/drill drills/run.py bench/database.py
	ansible-lint --offline

.PHONY: unit
unit: .venv/complete  ## the unit tests
	pytest -q --numprocesses=auto tests/unit

.PHONY: test
test: .venv/complete  ## everything: linters, unit tests, every role's scenario, the whole stack
	$(MAKE) --jobs=2 --output-sync=target lint unit
	pytest -v --durations=0 tests/scenarios

.PHONY: lock
lock: .venv/complete  ## pin the Python requirements anew
	pip install --quiet pip-tools
	pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file requirements.txt requirements.in
