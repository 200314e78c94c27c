"""The running account of a training run: one JSON line every few steps, and where the time went."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch

from ..artifact import atomic_file
from ..errors import TonicsError, writing_to
from .model.loss import in_batch_accuracy

_FINE = 2**31  # no step has this number
Item = TypeVar("Item")


class Metrics:
    """Writes ``metrics.jsonl``; sums stay on the device, so that most steps need not wait for it.

    Args:
        path: the file; opened by ``with``, continued after a resume.
        device: where the trainer computes.

    Attributes:
        sums: (4,) loss, accuracy image to text and text to image, steps; since the last line.
        last: the newest line.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path = path
        self.sums = torch.zeros(4, device=device)
        self.first_bad = torch.tensor(_FINE, device=device)
        self.last: dict[str, Any] = {}
        self.samples, self.waited, self.since = 0, 0.0, time.perf_counter()

    def cut(self, step: int) -> None:
        """Drop the lines after a step (a resumed run writes them again), and a half-written one."""
        kept = [line for line in _whole_lines(self.path) if line["step"] <= step]
        self.last = kept[-1] if kept else {}
        with atomic_file(self.path) as tmp:
            tmp.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def __enter__(self) -> Metrics:
        with writing_to(self.path):
            self.file = self.path.open("a", encoding="utf-8")
        self.since = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.file.close()

    def waiting(self, source: Iterable[Item]) -> Iterator[Item]:
        """Pass items on, and add up the time spent waiting for them."""
        items = iter(source)
        while True:
            start = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self.waited += time.perf_counter() - start
            yield item

    @torch.no_grad()
    def add(self, step: int, loss: torch.Tensor, logits: torch.Tensor, norm: torch.Tensor) -> None:
        """Take in one step: its loss, its (B, B) logits and its gradient's norm."""
        loss = loss.detach()
        one = torch.ones_like(loss)
        self.sums += torch.stack([loss, *in_batch_accuracy(logits.detach()), one])
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        self.first_bad = torch.where(bad, self.first_bad.clamp(max=step), self.first_bad)
        self.samples += len(logits)

    def write(self, facts: Mapping[str, Any]) -> None:
        """Write one line: the facts given, the means since the last line, and the times."""
        loss, i2t, t2i, steps = self.sums.tolist()
        now = time.perf_counter()
        seconds = max(now - self.since, 1e-9)
        self.last = {
            **facts,
            "loss": loss / steps,
            "accuracy_i2t": i2t / steps,
            "accuracy_t2i": t2i / steps,
            "samples_per_s": round(self.samples / seconds, 1),
            "data_wait": round(self.waited / seconds, 4),
        }
        with writing_to(self.path):
            self.file.write(json.dumps(self.last) + "\n")
            self.file.flush()
        self.sums.zero_()
        self.samples, self.waited, self.since = 0, 0.0, now

    def flush(self) -> None:
        """Force the lines so far to the disk, before a checkpoint that presumes them."""
        os.fsync(self.file.fileno())

    def refuse_nan(self, plan_name: str) -> None:
        """Stop a run that has gone wrong.

        Raises:
            TonicsError: the loss or the gradient of a step was not finite; the line names it.
        """
        step = int(self.first_bad)
        if step < _FINE:
            found = f"the loss or its gradient at step {step + 1} is not a finite number"
            do = (
                f"look at batch {step} of plan {plan_name!r} for broken features or vectors, "
                "or lower the learning rate"
            )
            raise TonicsError(self.path.parent, found, do=do)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines up to the first that a crash left incomplete."""
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_bytes().splitlines(keepends=True):
            try:
                lines.append(json.loads(text if text.endswith(b"\n") else b""))
            except ValueError:
                break
    return lines
