"""What the recipes start from: a reader's own rows, a plan for them, a journal of what arrived."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tonics.train import Plan
from tonics.train.plan_files import REMAINDER_SCHEMA, Batches, write_plan

PAGES = Path(__file__).resolve().parent.parent.parent / "docs" / "recipes"
PAIRS, B, EPOCHS = 28, 4, (0, 0, 0, 1, 1, 1, 1)  # epochs of three and four batches
DONE = 5  # steps before the resumed run, which goes on within epoch 1
FOLDER = "my-photos/plans/mixed"


def write_my_plan(folder: Path) -> Plan:
    """Seven batches of four over pairs 0, 3, 6, ...; in two epochs of different length."""
    folder.mkdir(parents=True)
    pair = np.arange(PAIRS) * 3
    batches = Batches(
        epoch=np.array(EPOCHS, np.int32),
        phase=np.zeros(len(EPOCHS), np.int16),
        node=np.full(len(EPOCHS), -1, np.int32),
        pairs=np.random.default_rng(0).permutation(pair).reshape(-1, B),
    )
    pairs = pa.table(
        {
            "pair": pair,
            "pair_key": [f"{p // 6}.jpg#{p // 3 % 2}" for p in pair],
            "image": pair // 6,
            "image_id": [f"{p // 6}.jpg" for p in pair],
            "caption": [f"w{p}" for p in pair],
            "split": ["train"] * PAIRS,
            "caption_hash": pa.array(pair, pa.uint64()),
        }
    )
    counts = {"epochs": max(EPOCHS) + 1}
    header = {"batch_size": B, "sub_block": 1, "nodes": [], "inputs": {}, "phases": []}
    left = pa.table({f.name: pa.array([], f.type) for f in REMAINDER_SCHEMA})
    write_plan(folder, {**header, "counts": counts}, batches, pairs, left, {})
    return Plan(folder)


def write_my_encoder(folder: Path) -> None:
    """A BERT of one small layer, for texts of one word that is the number of their row."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(PAIRS + 2))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=8).save_pretrained(folder)
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    BertModel(BertConfig(vocab_size=len(words), hidden_size=8, **shape)).save_pretrained(folder)


def my_keys() -> list[str]:
    """Keys of somebody's rows, in their own order, two of them in no plan."""
    keys = [f"{k // 2}.jpg#{k % 2}" for k in range(PAIRS + 2)]
    return [keys[k] for k in np.random.default_rng(1).permutation(len(keys))]


class MyRows(torch.utils.data.Dataset):
    """Each row an image, a text and, so that we see what arrives, its own number."""

    def __len__(self) -> int:
        return PAIRS + 2

    def __getitem__(self, row: int) -> dict[str, Any]:
        values = torch.sin(torch.arange(8) * (row + 1.0))
        return {"image": values, "text": values.flip(0), "row": row}


class TwoTowers(torch.nn.Module):
    """Two linear maps, and the loss of a batch; the trainer's only interest in it."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.images, self.texts = torch.nn.Linear(8, 4), torch.nn.Linear(8, 4)
        self.journal = journal

    def forward(self, image: torch.Tensor, text: torch.Tensor, row: torch.Tensor) -> dict[str, Any]:
        self.journal.saw(row)
        logits = self.images(image) @ self.texts(text).T
        targets = torch.arange(len(row), device=logits.device)
        return {"loss": torch.nn.functional.cross_entropy(logits, targets)}


class Journal:
    """Audits every batch that arrives, together with the other ranks, against the next planned."""

    def __init__(self, start: int = 0) -> None:
        self.plan = Plan(FOLDER).align(my_keys())
        self.step = start

    def saw(self, rows: torch.Tensor | Iterable[int]) -> None:
        self.plan.audit(self.step, np.asarray(rows))
        self.step += 1

    def close(self) -> None:
        """Every batch of the plan came."""
        assert self.step == len(self.plan), f"{self.step} of {len(self.plan)} batches arrived"


def code_of(page: str, number: int = 0) -> str:
    """A Python block of a recipe's page."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.S)[number]


def run(page: str, number: int = 0, leave_out: str = "", **names: Any) -> dict[str, Any]:
    """Execute a page's block with a reader's own ``names`` in place.

    Args:
        leave_out: a part of the block that a reader forgot, as a pattern.
    """
    code, forgotten = re.subn(leave_out, "", code_of(page, number)) if leave_out else ("", 1)
    assert forgotten, f"{page}.md does not say {leave_out}"
    exec(compile(code or code_of(page, number), f"docs/recipes/{page}.md", "exec"), names)
    return names
