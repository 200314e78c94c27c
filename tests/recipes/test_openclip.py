"""The OpenCLIP recipe, in an environment of its own.

OpenCLIP needs torchvision, which must stay out of the environment of everything else. ``make
openclip`` makes one that shares the other packages; ``TONICS_OPENCLIP_PYTHON`` names the Python of
another that has OpenCLIP, numpy, pyarrow, xxhash and pandas.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python() -> str:
    made = Path(sys.prefix) / "openclip" / "bin" / "python"
    python = os.environ.get("TONICS_OPENCLIP_PYTHON", str(made))
    if not Path(python).exists():
        pytest.skip("no environment with OpenCLIP: make openclip, or set TONICS_OPENCLIP_PYTHON")
    return python


@pytest.mark.parametrize("world", [1, 2])
def test_openclip(
    world: int, python: str, tmp_path: Path, run_ranks: Callable[..., list[str]]
) -> None:
    run_ranks(tmp_path, "openclip_program.py", python=python, world=world)
    assert (tmp_path / "logs" / "whole" / "checkpoints" / "epoch_2.pt").exists()
