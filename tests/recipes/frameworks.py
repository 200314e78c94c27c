"""The recipes of docs/recipes carried out on a reader's rows: from the start, and resumed.

A function returns when every planned batch arrived whole and in order (``reader.Journal``), both
times. The tests call them in a lone process; two ranks run this file as a program.
"""

from __future__ import annotations

import itertools
import sys
from datetime import timedelta
from typing import Any

import pytest
import torch
from reader import DONE, PAIRS, Journal, MyRows, TwoTowers, my_keys, run

from tonics.errors import InputError


def ranks() -> tuple[int, int]:
    """Rank and world of this process."""
    distributed = torch.distributed
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def own_loop(page: str, number: int = 0, **more: Any) -> None:
    """A page whose loop is the reader's: its ``train_step`` audits."""
    rank, world = ranks()
    journal = Journal()

    def train_step(step: int, batch: dict[str, Any]) -> None:
        assert step == journal.step
        journal.saw(batch["row"])

    mine = {"rank": rank, "world": world, "my_keys": my_keys(), "my_dataset": MyRows(), **more}
    for done in (0, DONE):
        journal.step = done
        run(page, number, done=done, train_step=train_step, **mine)
        journal.close()


def plain_torch() -> None:
    own_loop("torch")


def accelerate() -> None:
    own_loop("accelerate")


def fabric() -> None:
    own_loop("lightning", 1, my_arguments={"accelerator": "cpu", "devices": 1, **one_node()})


def one_node() -> dict[str, Any]:
    """Lightning's way to say that the processes are there already."""
    return {"devices": ranks()[1], "strategy": "ddp"} if ranks()[1] > 1 else {}


def huggingface_trainer() -> None:
    for done, resume in ((0, None), (DONE, f"run/checkpoint-{DONE}")):
        journal = Journal(done)
        mine = {"my_model": TwoTowers(journal), "my_dataset": MyRows(), "my_keys": my_keys()}
        run("huggingface-trainer", resume=resume, my_arguments=saving(), **mine)
        journal.close()


def saving() -> dict[str, Any]:
    """Arguments of a Hugging Face trainer that saves before ``DONE`` and says little."""
    quiet = {"report_to": "none", "disable_tqdm": True, "logging_steps": 100}
    return {"save_steps": DONE, "use_cpu": True, "optim": "sgd", **quiet}


def sentence_transformers() -> None:
    import datasets

    texts = [f"w{row}" for row in range(PAIRS + 2)]
    rows = datasets.Dataset.from_dict({"caption": texts, "another": texts})
    for done, resume in ((0, None), (DONE, f"run/checkpoint-{DONE}")):
        journal = Journal(done)
        mine = {"my_model": my_text_model(journal), "my_dataset": rows, "my_keys": my_keys()}
        run("sentence-transformers", resume=resume, my_arguments=saving(), **mine)
        journal.close()


def my_text_model(journal: Journal) -> Any:
    """A sentence encoder of one small layer, whose every second text tells the journal its row."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    encoder, calls = Transformer("encoder"), itertools.count()

    def tell(module: Any, inputs: tuple[dict[str, torch.Tensor]]) -> None:
        if module.training and next(calls) % 2 == 0:  # the first of a pair's two texts
            journal.saw(inputs[0]["input_ids"][:, 1] - 5)

    encoder.register_forward_pre_hook(tell)
    return SentenceTransformer(modules=[encoder, Pooling(8)], device="cpu")


def my_lightning_module(journal: Journal) -> Any:
    import lightning as pl

    class MyModule(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.towers = TwoTowers(journal)

        def training_step(self, batch: dict[str, Any], number: int) -> Any:
            assert number == journal.step
            return self.towers(**batch)["loss"]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return MyModule()


def lightning_arguments() -> dict[str, Any]:
    """Arguments of a Lightning trainer that saves at ``DONE`` and says little."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    saved = ModelCheckpoint(".", "saved", every_n_train_steps=DONE, enable_version_counter=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return {"accelerator": "cpu", "callbacks": [saved], **quiet, **one_node()}


def lightning() -> None:
    for done, resume in ((0, None), (DONE, "saved.ckpt")):
        journal = Journal(done)
        mine = {"my_module": my_lightning_module(journal), "my_dataset": MyRows()}
        mine |= {"my_keys": my_keys(), "my_arguments": lightning_arguments()}
        run("lightning", resume=resume, **mine)
        journal.close()


def pytorch_metric_learning() -> None:
    """Alone: the library's trainers know no ranks."""
    from pytorch_metric_learning.losses import NTXentLoss

    journal = Journal()

    class Trunk(torch.nn.Linear):
        def forward(self, data: torch.Tensor) -> torch.Tensor:
            journal.saw(data[:, 8].long())
            return super().forward(data[:, :8])

    rows = [(torch.cat([r["image"], torch.tensor([r["row"]])]), r["row"] // 2) for r in my_rows()]
    trunk = Trunk(8, 4)
    mine = {
        "my_models": {"trunk": trunk},
        "my_optimizers": {"trunk_optimizer": torch.optim.SGD(trunk.parameters(), lr=0.1)},
        "my_losses": {"metric_loss": NTXentLoss()},
        "my_dataset": rows,
        "my_keys": my_keys(),
    }
    for done in (0, DONE):
        journal.step = done
        run("pytorch-metric-learning", done=done, **mine)
        journal.close()


FORGOTTEN = {
    "accelerate": (r"split_batches=True", r"(?s)split_batches=True|sampler.check\(loader\)"),
    "huggingface-trainer": (
        r'"split_batches": True',
        r'"split_batches": True|sampler.check.loader.',
    ),
    "sentence-transformers": (r'"split_batches": True', r'"split_batches": True|sampler.check.*'),
    "torch": (r"rank, world, ",),
    "lightning": (r"use_distributed_sampler=False, ", r"rank, world, (?=start)"),
}
SAYS = "would read|use_distributed_sampler|`PlanBatchSampler`"  # ours, and Lightning's


def refusals() -> None:
    """Among several ranks, leaving a recipe's words out is an error before the first step."""
    import datasets

    texts = [f"w{row}" for row in range(PAIRS + 2)]
    for page, patterns in FORGOTTEN.items():
        for pattern in patterns:
            journal = Journal()
            mine: dict[str, Any] = {"my_model": TwoTowers(journal), "my_dataset": MyRows()}
            mine |= {"my_keys": my_keys(), "resume": None, "my_arguments": saving(), "done": 0}
            mine |= {"train_step": lambda step, batch: journal.saw(batch["row"])}  # noqa: B023
            if page == "sentence-transformers":
                rows = datasets.Dataset.from_dict({"caption": texts, "another": texts})
                mine |= {"my_model": my_text_model(journal), "my_dataset": rows}
            if page == "lightning":
                module = my_lightning_module(journal)
                mine |= {"my_module": module, "my_arguments": lightning_arguments()}
            with pytest.raises((InputError, TypeError, RuntimeError), match=SAYS):
                run(page, leave_out=pattern, **mine)
            assert journal.step == 0, (page, pattern)


def my_rows() -> list[dict[str, Any]]:
    rows = MyRows()
    return [rows[row] for row in range(len(rows))]


RANKED = (plain_torch, accelerate, fabric, lightning, huggingface_trainer, sentence_transformers)
RECIPES = {recipe.__name__: recipe for recipe in (*RANKED, pytorch_metric_learning)}


def main(names: list[str]) -> None:
    """Carry out recipes as one rank; the first that fails ends this rank, and so the others."""
    torch.distributed.init_process_group("gloo", timeout=timedelta(minutes=1))
    torch.set_num_threads(1)
    for name in names:
        {**RECIPES, "refusals": refusals}[name]()
        print("done:", name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
