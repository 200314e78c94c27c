"""What ``test_ranks.py`` runs in several processes at once: gradients, then runs of the trainer."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tonics.errors import TonicsError
from tonics.features import FeatureStore
from tonics.train.config import TrainConfig
from tonics.train.objective import Objective, spread
from tonics.train.plan import Plan
from tonics.train.ranks import ALONE, Ranks, joined
from tonics.train.stream import CachedTexts
from tonics.train.trainer import train

TINY = TrainConfig(
    embedding_dim=16, hidden=16, lr=3e-3, log_every=3, checkpoint_every=4, dropout=0.2, ema=0.9
)
CALM = replace(TINY, dropout=0.0, region_dropout=0.0, steps=6)


class Killed(Exception):
    """Raised on all ranks at once, as if they had been killed."""


class Linear(torch.nn.Module):
    """A model in float64, of which nothing is drawn."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.image = torch.nn.Linear(5, 6, dtype=torch.float64)
        self.text = torch.nn.Linear(4, 6, dtype=torch.float64)
        self.temperature = torch.nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

    def forward(self, *given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        features, texts = given[0], given[-1]
        if len(given) == 1:
            features, texts = given[0].features, given[0].texts
        unit = torch.nn.functional.normalize
        return unit(self.image(features)), unit(self.text(texts))


def gradients(ranks: Ranks, config: TrainConfig, rows: slice) -> tuple[list[torch.Tensor], Any]:
    """Gradients, by the trainer's own wrapping, of this rank's rows of a batch of 24."""
    torch.manual_seed(3)
    features = torch.randn(24, 5, dtype=torch.float64)
    texts = torch.randn(24, 4, dtype=torch.float64)
    texts[:, :4] += features[:, :4]
    names = ("geometry", "cu_seqlens", "longest")
    batch = SimpleNamespace(features=features[rows], texts=texts[rows], **dict.fromkeys(names))
    objective = Objective(Linear(), config, ranks)
    wrapped = spread(objective, ranks)
    for _ in range(2):  # the first time tells the ranks which gradients to expect
        wrapped.zero_grad(set_to_none=True)
        loss, accuracy = wrapped(batch)
        loss.backward()
    said = ranks.reduce(torch.stack([loss.detach(), *accuracy])) / ranks.world
    return [p.grad.clone() for p in objective.parameters()], said


def check_gradients(ranks: Ranks) -> None:
    """A fraction of the batch on every rank, and all of it in one process, give the same."""
    size = 24 // ranks.world
    mine = slice(ranks.rank * size, (ranks.rank + 1) * size)
    for loss in ("info_nce", "siglip"):
        config = TrainConfig(loss=loss)
        whole, said = gradients(ALONE, config, slice(None))
        assert len(whole) == (6 if loss == "siglip" else 5)
        assert min(g.abs().max() for g in whole) > 1e-4
        for chunk in (10_000, 5):
            shared, also = gradients(ranks, replace(config, chunk=chunk), mine)
            torch.testing.assert_close(also, said, rtol=1e-6, atol=1e-6)
            for a, b in zip(shared, whole, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def check_talk(ranks: Ranks) -> None:
    """Numbers and words go around."""
    assert ranks.share({"from": ranks.rank}) == {"from": 0}
    mine = torch.tensor([ranks.rank, 1])
    assert ranks.reduce(mine).tolist() == [sum(range(ranks.world)), ranks.world]
    assert ranks.reduce(mine, "max").tolist() == [ranks.world - 1, 1]
    ranks.agree("here", "same")
    with pytest.raises(TonicsError, match="rank 1 has 1 where rank 0 has 0"):
        ranks.agree("here", min(ranks.rank, 1))


def runs(folder: Path, ranks: Ranks) -> None:
    """Whole runs, and runs that were stopped twice."""
    pairs, vectors = np.load(folder / "pairs.npy"), np.load(folder / "vectors.npy")
    store, texts = FeatureStore(folder / "features"), CachedTexts.of_rows(vectors, pairs)
    plans = {name: Plan(folder / "plans" / name) for name in ("tiny", "pools")}

    seeds: list[int] = []

    def run(name: str, config: TrainConfig, stop: int = 0, plan: str = "tiny") -> None:
        def progress(done: int, total: int, last: object) -> None:
            seeds.append(torch.initial_seed())
            if done == stop:
                raise Killed

        train(
            config, plans[plan], store, texts, folder / f"{name}-{ranks.world}", progress=progress
        )

    kinds = {"static": "tiny", "drawn": "pools"} if ranks.world == 2 else {"static": "tiny"}
    for name, plan in kinds.items():
        run(f"{name}-whole", TINY, plan=plan)
        for stop in (6, 11) if ranks.world == 2 else (6,):
            with pytest.raises(Killed):
                run(f"{name}-stopped", TINY, stop, plan)
        run(f"{name}-stopped", TINY, plan=plan)
    run("calm", CALM)
    others: list[list[int]] = [[]] * ranks.world
    torch.distributed.all_gather_object(others, seeds)
    assert [len(set(step)) for step in zip(*others, strict=True)] == [ranks.world] * len(seeds)


def main() -> None:
    """First four processes, then the first two of them.

    They are forked once everything is imported, and before torch computes anything: four imports of
    torch would take longer than all else.
    """
    import webdataset  # noqa: F401

    rank, others = 0, []
    for number in range(1, 4):
        if not (process := os.fork()):
            rank, others = number, []
            break
        others.append(process)
    os.environ["RANK"] = str(rank)
    torch.set_num_threads(1)
    for world, port in ((4, sys.argv[2]), (2, sys.argv[3])):
        if rank < world:
            os.environ |= {"WORLD_SIZE": str(world), "MASTER_PORT": port}
            with joined() as ranks:
                assert ranks.world == world
                check_talk(ranks)
                check_gradients(ranks)
                runs(Path(sys.argv[1]), ranks)
    sys.exit(any(os.waitpid(process, 0)[1] for process in others))


if __name__ == "__main__":
    main()
