# `make` alone lists what there is. Everything is written inside this tree.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
DISTRO ?= jazzy
INSTRUCTION ?=
SEED ?=
TORCH_INDEX ?=
VENV := $(if $(filter jazzy,$(DISTRO)),.venv,.venv-$(DISTRO))
RUN := $(VENV)/bin/python -m bridgevla_ros.cli

# A sourced ROS installation must not mix with the wheels in the virtual environment.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH ROS_DISTRO
# Some containers forbid compiled files; then each process of the graph compiles torch's thousands of modules anew.
unexport PYTHONDONTWRITEBYTECODE
export INSTRUCTION SEED

.PHONY: help setup setup-robosuite demo test lint clean

help: ## this list
	@echo 'make demo     set up if needed, start the whole graph, do the main job, say where the pictures are'
	@echo '              options: INSTRUCTION="put the red cube in the blue bowl"  SEED=3  DISTRO=jazzy|kilted'
	@echo 'make test     set up if needed, run all tests;  ARGS="-k name" picks some'
	@echo 'make setup    only set up: virtual environment, ROS 2 wheels, messages, missing Debian libraries'
	@echo '              options: DISTRO=jazzy|kilted  PYTHON=python3.12  TORCH_INDEX=URL'
	@echo 'make lint     ruff and mypy'
	@echo 'make setup-robosuite   optional: robosuite in .venv-robosuite (1.1 GB), for bridgevla eval --suite robosuite'
	@echo 'make clean    remove what was built, recorded and set up'

setup: ## virtual environment, wheels, messages
	@$(PYTHON) tools/setup_env.py --distro $(DISTRO) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

setup-robosuite: ## robosuite, in an environment of its own
	@$(PYTHON) tools/setup_robosuite.py

demo: setup ## the main job
	@$(RUN) demo $${INSTRUCTION:+--instruction "$$INSTRUCTION"} $${SEED:+--seed "$$SEED"}

test: setup ## all tests
	@$(VENV)/bin/python -m pytest -n logical --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup ## ruff and mypy
	@$(VENV)/bin/python -m ruff check .
	@$(VENV)/bin/python -m ruff format --check .
	@$(VENV)/bin/python -m mypy

clean: ## what can be made again
	rm -rf .venv .venv-kilted .venv-robosuite build install log runs .setup *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
