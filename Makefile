# setup check test demo docs results: everything a person or CI runs. PIP_FLAGS goes to pip, PYTHON is 3.11 or newer.
PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo

.PHONY: help setup check test demo docs families results results-fresh results-12 results-48 results-96 results-128 results-small results-small-24 results-ruen paper paper-runs paper-scores paper-page dp attack figures wheel-check clean

help:
	@echo "make demo    set up, then train local, fedavg and centroid on synthetic sentences and compare them"
	@echo "make test    set up, then run all tests (TRUSTFORMER_DATA=DIR names the folder of real corpora)"
	@echo "make check   format, lint, types, layers"
	@echo "make docs    the documentation as a site in site/, from docs/ and the recorded results"
	@echo "make wheel-check   build the wheel, install it alone into a clean environment and run with it"
	@echo "make results results-fresh results-12 results-48 results-96 results-128 results-small results-small-24 results-ruen paper families dp attack   the recorded runs again: minutes to hours each (benchmarks/README.md)"
	@echo "make setup   the environment in $(VENV) only; PIP_FLAGS=... is passed to pip"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "setting up $(VENV): a few minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/trustformer compare configs/demo/local.toml configs/demo/fedavg.toml configs/demo/centroid.toml --jobs 3 --out $(DEMO)

test: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

check: setup
	@$(BIN)/ruff format --check src tests docs benchmarks
	@$(BIN)/ruff check src tests docs benchmarks
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Writes the generated pages and pictures, then the site into site/ (git-ignored); nothing in it is loaded from elsewhere.
docs: setup
	@$(BIN)/python docs/tools/generate.py
	@$(BIN)/python docs/tools/pictures.py docs/images
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "written: site/index.html (the search box needs a server: $(BIN)/python -m http.server -d site)"

# The comparisons of the README: three seeds, two runs at a time; on 2 cores three hours and a half, and one for the shorter.
RECIPES := benchmarks/configs
COMPARED := local fedavg centroid-24x centroid centroid-32x centroid-50x centroid-100x
results: setup
	@$(BIN)/trustformer compare $(patsubst %,$(RECIPES)/multi30k/%.toml,$(COMPARED)) --seeds 1 2 3 --out runs/multi30k
	@$(BIN)/python benchmarks/keep.py runs/multi30k benchmarks/results/multi30k
	@$(MAKE) --no-print-directory figures

# The row of 32x again, with seeds on which nothing was chosen: an hour on 2 cores.
results-fresh: setup
	@$(BIN)/trustformer compare $(patsubst %,$(RECIPES)/multi30k/%.toml,local fedavg centroid-32x centroid-100x) \
		--seeds 4 5 6 --out runs/multi30k-fresh
	@$(BIN)/python benchmarks/keep.py runs/multi30k-fresh benchmarks/results/multi30k-fresh

# The same after half of the epochs.
SHORT := $(RECIPES)/multi30k-12
results-12: setup
	@$(BIN)/trustformer compare $(SHORT)/local.toml $(SHORT)/fedavg.toml $(SHORT)/centroid-23x.toml \
		$(SHORT)/centroid-30x.toml $(SHORT)/centroid.toml \
		--seeds 1 2 3 --out runs/multi30k-12
	@$(BIN)/python benchmarks/keep.py runs/multi30k-12 benchmarks/results/multi30k-12

# Twice as many epochs, batches four times as large, more dropout: three seeds. On 2 cores about four hours; sixteen such runs shared a GPU for three and a half minutes (MPS).
LONGER := $(RECIPES)/multi30k-48
results-48: setup
	@$(BIN)/trustformer compare $(LONGER)/local.toml $(LONGER)/fedavg.toml $(LONGER)/centroid-50x.toml \
		$(LONGER)/centroid-100x.toml --seeds 1 2 3 --out runs/multi30k-48
	@$(BIN)/python benchmarks/keep.py runs/multi30k-48 benchmarks/results/multi30k-48

# Twice as many epochs again, batches twice as large, a falling learning rate, and with a dropout of 0.3: three seeds. On 2 cores more than half a day; all shared a GPU for a few minutes (MPS).
LONGEST := $(RECIPES)/multi30k-96
results-96: setup
	@$(BIN)/trustformer compare $(LONGEST)/local.toml $(LONGEST)/fedavg.toml $(LONGEST)/centroid-50x.toml \
		$(LONGEST)/centroid-100x.toml --seeds 1 2 3 --out runs/multi30k-96
	@$(BIN)/python benchmarks/keep.py runs/multi30k-96 benchmarks/results/multi30k-96
	@$(BIN)/trustformer compare $(LONGEST)-dropout/local.toml $(LONGEST)-dropout/fedavg.toml \
		$(LONGEST)-dropout/centroid-100x.toml --seeds 1 2 3 --out runs/multi30k-96-dropout
	@$(BIN)/python benchmarks/keep.py runs/multi30k-96-dropout benchmarks/results/multi30k-96-dropout

# More dropout and a third more epochs, a short fall of the learning rate: three seeds. On 2 cores the better part of a day (estimated); all shared a GPU for about seven minutes (MPS).
RESTED := $(RECIPES)/multi30k-128
results-128: setup
	@$(BIN)/trustformer compare $(RESTED)/local.toml $(RESTED)/fedavg.toml $(RESTED)/centroid-100x.toml \
		--seeds 1 2 3 --out runs/multi30k-128
	@$(BIN)/python benchmarks/keep.py runs/multi30k-128 benchmarks/results/multi30k-128

# A larger model: three seeds, 12 epochs, two hours on 2 cores.
LARGER := $(RECIPES)/multi30k-small
results-small: setup
	@$(BIN)/trustformer compare $(LARGER)/local.toml $(LARGER)/fedavg.toml $(LARGER)/centroid.toml \
		--seeds 1 2 3 --out runs/multi30k-small
	@$(BIN)/python benchmarks/keep.py runs/multi30k-small benchmarks/results/multi30k-small

# The same, 24 epochs: three seeds, three hours on 2 cores.
LONGER_LARGER := $(RECIPES)/multi30k-small-24
results-small-24: setup
	@$(BIN)/trustformer compare $(LONGER_LARGER)/local.toml $(LONGER_LARGER)/fedavg.toml $(LONGER_LARGER)/centroid.toml \
		--seeds 1 2 3 --out runs/multi30k-small-24
	@$(BIN)/python benchmarks/keep.py runs/multi30k-small-24 benchmarks/results/multi30k-small-24

# Russian-English text of nine domains: three seeds, 16 epochs, and with all of s one: most of a day on 2 cores.
DOMAINS := $(RECIPES)/ruen
results-ruen: setup
	@$(BIN)/trustformer compare $(DOMAINS)/local.toml $(DOMAINS)/fedavg.toml $(DOMAINS)/centroid-fades.toml --seeds 1 2 3 --out runs/ruen
	@$(BIN)/trustformer run $(DOMAINS)/centroid.toml --out runs/ruen/centroid-seed1 --resume
	@$(BIN)/python benchmarks/keep.py runs/ruen benchmarks/results/ruen

# The README's figure and the picture of its report, from the recorded comparison; the picture takes a Chromium.
figures: setup
	@$(BIN)/python benchmarks/figures.py benchmarks/results/multi30k docs/images

# docs/families.md: a small run of every model family and method, three seeds; about a quarter of an hour on one core.
# What is recorded is not run again.
families: setup
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/families.py run

# docs/paper.md: runs (many hours on 2 cores; what is finished is not run again), scores of translations, the page.
# BERT=FOLDER names a model for BERTScore; PAPER the folders of finished runs.
PAPER ?= runs/paper/multi30k runs/paper/ruen runs/paper/ruen_iid
BERT ?=
paper: paper-runs paper-scores

paper-runs: setup
	@for corpus in multi30k ruen ruen_iid; do $(BIN)/trustformer compare benchmarks/configs/paper/$$corpus-*.toml --seeds 1 2 3 \
		--out runs/paper/$$corpus || exit 1; done

paper-scores: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[bench]'
	@for runs in $(PAPER); do $(BIN)/python benchmarks/paper/metrics.py $$runs benchmarks/results/paper \
		$(if $(BERT),--bert-model $(BERT)) && $(BIN)/python benchmarks/keep.py $$runs benchmarks/results/paper --runs-only \
		|| exit 1; done
	@$(MAKE) --no-print-directory paper-page

paper-page: setup
	@$(BIN)/python benchmarks/paper/page.py

# What an installation without this folder can do: only the wheel is there, run from elsewhere.
CLEAN := build/wheel-check
wheel-check: setup
	@rm -rf $(CLEAN) && $(PYTHON) -m venv $(CLEAN)/venv
	@$(BIN)/python -m pip wheel --quiet --no-deps $(PIP_FLAGS) -w $(CLEAN) .
	@$(CLEAN)/venv/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt $(CLEAN)/*.whl
	@sh benchmarks/wheel_check.sh $(CLEAN)

# Private runs at equal epsilon, three seeds; about an hour on one core. Noise is not repeatable: neither are digits.
# What is recorded under benchmarks/results is not run again.
dp: setup
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/dp.py run

# What messages leak (docs/privacy.md): small audited runs, attacked as every adversary; a quarter of an hour on one core.
ATTACKED := fedavg codebook partition paper sizes
attack: setup
	@for name in $(ATTACKED); do $(BIN)/trustformer run benchmarks/configs/attack/$$name.toml \
		--out runs/attack/$$name --resume && $(BIN)/trustformer attack runs/attack/$$name \
		--attack $$(test $$name = sizes && echo sizes || echo all) || exit 1; done
	@$(BIN)/python benchmarks/keep.py runs/attack benchmarks/results/attack
	@$(BIN)/python benchmarks/attack_table.py

clean:
	rm -rf $(VENV) build dist site src/*.egg-info
