# make demo        train Mask R-CNN FasterNet-T0 on the embedded data, evaluate it, draw its predictions
# make demo-fast   the same with RTMDet-Ins, the model for real time
# make demo-seg    the same with UPerNet: label maps instead of instances, mIoU
# make test        ruff, mypy and pytest
# make test-slow   the tests that train or start processes for ten seconds or more each, which make test leaves out
# make test-gpu    the tests of tests/gpu alone, which need CUDA
# make test-kills  kills trainings over and over, sends them signals, and looks that nothing is lost (KILLS=20 for fewer)
# make test-page   the page again, with many visitors one after the other
# make test-notebook  the notebook in examples/, from its data to a prediction
# make notebook    run that notebook as it is, and store in it what its cells print and show
# make test-labels how many mistakes, made in good labels on purpose, the list of suspicious labels has in its first tenth
# make docs        the documentation as a site in build/docs; a warning or a dead link fails
# make release-check  build the sdist and the wheel, and try the wheel as its users do
# make test-onedl  pytest with OneDL's fork of OpenMMLab's libraries
# make clean       remove what these made
#
# All make their environment in .venv first (test-onedl in .venv-onedl). PYTHON chooses the interpreter (3.10 to 3.13).

PYTHON ?= $(firstword $(shell for v in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$v -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$v; done; true))
VENV := .venv
BIN := $(VENV)/bin
VENV_ONEDL := .venv-onedl
RELEASE := build/release
CONFIG := configs/shapes/mask_rcnn_fasternet_t0_shapes.py
WORK := work_dirs/mask_rcnn_fasternet_t0_shapes
CHECKPOINT := $(WORK)/epoch_4.pth
FAST_CONFIG := configs/shapes/rtmdet_ins_fasternet_t0_shapes.py
FAST_WORK := work_dirs/rtmdet_ins_fasternet_t0_shapes
FAST_CHECKPOINT := $(FAST_WORK)/epoch_10.pth
SEG_CONFIG := configs/shapes/upernet_fasternet_t0_shapes.py
SEG_WORK := work_dirs/upernet_fasternet_t0_shapes
SEG_CHECKPOINT := $(SEG_WORK)/iter_650.pth

.PHONY: demo demo-fast demo-seg test test-slow test-gpu test-kills test-page test-notebook notebook test-labels test-onedl docs release-check clean
.DELETE_ON_ERROR:

EXTRAS := requirements-test.txt requirements-onnx.txt requirements-openvino.txt requirements-int8.txt \
	requirements-serve.txt requirements-app.txt requirements-track.txt requirements-large.txt \
	requirements-hub.txt requirements-tensorboard.txt requirements-mlflow.txt

define new_environment
@test -n "$(PYTHON)" || { echo "make: no Python 3.10 to 3.13 found; name one: make PYTHON=/path/to/python" >&2; exit 2; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	{ echo "make: $(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
$(PYTHON) -m venv $(@D)
endef

# Stamps are written last, so an interrupted installation is taken up again.
$(VENV)/installed: requirements.txt $(EXTRAS) pyproject.toml setup.py
	$(new_environment)
	$(BIN)/pip install --quiet -r requirements.txt $(EXTRAS:%=-r %)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV_ONEDL)/installed: requirements.txt requirements-onedl.txt $(EXTRAS) pyproject.toml setup.py
	$(new_environment)
	$(@D)/bin/pip install --quiet --constraint requirements.txt setuptools -r requirements-onedl.txt $(EXTRAS:%=-r %)
	$(@D)/bin/pip install --quiet --constraint requirements.txt --no-build-isolation --editable .
	touch $@

# A checkpoint appears whole or not at all; an interrupted training goes on from the last one.
$(CHECKPOINT): | $(VENV)/installed
	$(BIN)/fasternet-mm train $(CONFIG) --resume --seed 0

demo: $(CHECKPOINT)
	$(BIN)/fasternet-mm test $(CONFIG) $(CHECKPOINT) --show-dir $(WORK)/drawings

$(FAST_CHECKPOINT): | $(VENV)/installed
	$(BIN)/fasternet-mm train $(FAST_CONFIG) --resume --seed 0

demo-fast: $(FAST_CHECKPOINT)
	$(BIN)/fasternet-mm test $(FAST_CONFIG) $(FAST_CHECKPOINT) --show-dir $(FAST_WORK)/drawings

$(SEG_CHECKPOINT): | $(VENV)/installed
	$(BIN)/fasternet-mm train $(SEG_CONFIG) --resume --seed 0

demo-seg: $(SEG_CHECKPOINT)
	$(BIN)/fasternet-mm test $(SEG_CONFIG) $(SEG_CHECKPOINT) --show-dir $(SEG_WORK)/drawings

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow --numprocesses auto

test-gpu: $(VENV)/installed
	$(BIN)/python -m pytest tests/gpu

test-kills: $(VENV)/installed
	$(BIN)/python -m pytest -s tests/kills

test-page: $(VENV)/installed
	$(BIN)/python -m pytest -s tests/page tests/serving/test_gradio_page.py

test-notebook: $(VENV)/installed
	$(BIN)/pip install --quiet -r requirements-notebook.txt
	$(BIN)/python -m pytest tests/notebook

# The notebook anew, with what its cells print and show.
notebook: $(VENV)/installed
	$(BIN)/pip install --quiet -r requirements-notebook.txt
	$(BIN)/python tests/notebook_execution.py

test-labels: $(FAST_CHECKPOINT)
	$(BIN)/python tests/planted_errors.py $(FAST_WORK)

test-onedl: $(VENV_ONEDL)/installed
	$(VENV_ONEDL)/bin/python -m pytest --numprocesses auto --dist loadfile

# Material's word on its successor would be a warning.
docs: $(VENV)/installed
	$(BIN)/pip install --quiet -r requirements-docs.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site: build/docs/index.html"

# The wheel is built from the sdist, as pip would, and installed where nothing of the clone is at hand.
release-check: $(VENV)/installed docs
	$(BIN)/pip install --quiet -r requirements-release.txt
	rm -rf dist $(RELEASE)
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest tests/release/test_files.py
	$(BIN)/python -m venv $(RELEASE)
	$(RELEASE)/bin/pip install --quiet "$$(echo dist/*.whl)[tested]"
	$(BIN)/python -m pytest -s tests/release/test_installation.py

clean:
	rm -rf $(VENV) $(VENV_ONEDL) build dist work_dirs data/shapes
