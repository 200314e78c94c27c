"""A reader's folder to train in, and a way to start ranks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the programs of this folder import each other


@pytest.fixture(scope="session")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reader's plan and text encoder; ``tonics`` in it is this repository."""
    import reader

    folder = tmp_path_factory.mktemp("mine")
    reader.write_my_plan(folder / reader.FOLDER)
    reader.write_my_encoder(folder / "encoder")
    (folder / "tonics").symlink_to(HERE.parent.parent)
    return folder


@pytest.fixture
def here(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder beside a reader's plan and encoder."""
    link_mine(mine, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def link_mine(mine: Path, folder: Path) -> None:
    for name in ("my-photos", "encoder"):
        (folder / name).symlink_to(mine / name)


@pytest.fixture(scope="session")
def run_ranks(mine: Path) -> Callable[..., list[str]]:
    """The function that runs a program of this folder as ranks of one group, and returns outputs.

    A rank that fails takes the others with it: they would wait for it.
    """

    def start(
        folder: Path, program: str, *arguments: str, python: str = sys.executable, world: int = 2
    ) -> list[str]:
        link_mine(mine, folder)
        command = [python, "-W", "ignore", str(HERE / program), *arguments]
        files = [(folder / f"rank-{rank}.txt").open("w+") for rank in range(world)]
        port, ranks = free_port(), []
        for rank, file in enumerate(files):
            place = place_of(rank, world, port) if world > 1 else {}
            env = {**os.environ, "PYTHONPATH": str(mine), "OMP_NUM_THREADS": "1", **place}
            ranks.append(subprocess.Popen(command, cwd=folder, env=env, stdout=file, stderr=file))
        _wait(ranks)
        outputs = []
        for file in files:
            file.seek(0)
            outputs.append(file.read())
            file.close()
        assert all(rank.returncode == 0 for rank in ranks), "\n\n".join(o[-3000:] for o in outputs)
        return outputs

    return start


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def place_of(rank: int, world: int, port: str) -> dict[str, str]:
    """The environment in which ``torchrun`` would start a rank, on CPUs."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    place |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    return {**place, "ACCELERATE_USE_CPU": "true"}


def _wait(ranks: list[subprocess.Popen[bytes]]) -> None:
    while any(rank.poll() is None for rank in ranks):
        if any(rank.returncode for rank in ranks):
            for rank in ranks:
                rank.kill()
        time.sleep(0.05)
