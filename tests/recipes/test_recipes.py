"""Every recipe of docs/recipes brings every planned batch whole and in order: alone, on two ranks,
over epochs of different lengths, and resumed within one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

MODULES = {
    "plain_torch": "torch",
    "accelerate": "accelerate",
    "fabric": "lightning",
    "lightning": "lightning",
    "huggingface_trainer": "accelerate",
    "sentence_transformers": "datasets",
    "pytorch_metric_learning": "pytorch_metric_learning",
}
NO_RANKS = {"pytorch_metric_learning"}


def needs(name: str) -> None:
    pytest.importorskip(MODULES[name], reason=f"needs {MODULES[name]}: pip install '.[recipes]'")
    if name == "sentence_transformers":
        pytest.importorskip(name, reason=f"needs {name}: pip install '.[recipes]'")


@pytest.mark.parametrize("name", MODULES)
def test_alone(name: str, here: Path) -> None:
    needs(name)
    import frameworks

    frameworks.RECIPES[name]()


@pytest.fixture(scope="module")
def two_ranks(
    run_ranks: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """All recipes that know ranks, by two of them; imports cost more than the runs."""
    for name in MODULES:
        needs(name)
    folder = tmp_path_factory.mktemp("ranks")
    names = [name for name in MODULES if name not in NO_RANKS]
    run_ranks(folder, "frameworks.py", *names, "refusals")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [*sorted(MODULES.keys() - NO_RANKS), "refusals"])
def test_two_ranks(name: str, two_ranks: Path) -> None:
    for rank in (0, 1):
        assert f"done: {name}\n" in (two_ranks / f"rank-{rank}.txt").read_text()


@pytest.mark.slow
def test_two_ranks_of_sentence_transformers_train_what_one_does(
    two_ranks: Path, here: Path
) -> None:
    import frameworks
    import torch
    from safetensors.torch import load_file

    frameworks.sentence_transformers()
    file = f"run/checkpoint-{frameworks.DONE}/model.safetensors"
    alone, ranks = load_file(here / file), load_file(two_ranks / file)
    before = load_file(here / "encoder" / "model.safetensors")
    assert alone.keys() == ranks.keys()
    for name, weight in alone.items():
        torch.testing.assert_close(weight, ranks[name])
    assert any(not torch.equal(alone[name], before[name]) for name in alone.keys() & before.keys())


def test_every_page_is_in_the_index_and_is_run() -> None:
    import reader

    pages = {page.stem for page in reader.PAGES.glob("*.md")} - {"README"}
    index = (reader.PAGES / "README.md").read_text(encoding="utf-8")
    assert pages == set(re.findall(r"\]\(([\w-]+)\.md\)", index))
    run = {name.replace("plain_", "").replace("_", "-") for name in MODULES} - {"fabric"}
    assert pages == run | {"openclip"}
