"""The running account of a training run: one JSON line every few steps, and where the time went.

A line holds means since the line before it, over all ranks: ``loss``, ``accuracy_i2t`` and
``accuracy_t2i`` (shares of a batch whose own partner scored highest), what the trainer adds
(``step``, ``epoch``, ``phase``, ``phase_name``, ``temperature``, ``lr``), and rates:
``samples_per_s``, for tokens ``tokens_per_s`` and ``text_padding``, the padding that the text
tower's linear layers computed as a share of the tokens, and ``data_wait``, the share of the time
that the rank which waited longest spent waiting for batches. A line is written wherever a phase
ends, so that no line is about two phases.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch

from ..artifact import atomic_file
from ..errors import MissingAsset, TonicsError, writing_to
from .ranks import ALONE, Ranks

_FINE = 2**31  # no step has this number
_MEANS = ("loss", "accuracy_i2t", "accuracy_t2i")
Item = TypeVar("Item")


class Metrics:
    """Writes ``metrics.jsonl``; sums stay on the device, so that most steps need not wait for it.

    Args:
        path: the file; opened by ``with``, continued after a resume; only the first rank has one.
        device: where the trainer computes.
        board: write for TensorBoard, too, into ``tensorboard/`` beside the file.

    Attributes:
        sums: (4,) loss, accuracy image to text and text to image, steps; since the last line.
        last: the newest line.
    """

    def __init__(
        self, path: Path, device: torch.device, ranks: Ranks = ALONE, board: bool = False
    ) -> None:
        self.path, self.device, self.ranks = path, device, ranks
        self.folder = path.parent / "tensorboard" if board and ranks.leads else None
        self.board: Any = None
        if self.folder:
            require_board()
        self.sums = torch.zeros(4, device=device)
        self.first_bad = torch.tensor(_FINE, device=device)
        self.last: dict[str, Any] = {}
        self.step = 0
        self._start_rates()

    def _start_rates(self) -> None:
        self.samples, self.tokens, self.padded, self.waited = 0, 0, 0, 0.0
        self.since = time.perf_counter()

    def cut(self, step: int) -> None:
        """Drop the lines after a step (a resumed run writes them again), and a half-written one."""
        kept = [line for line in read_lines(self.path) if line["step"] <= step]
        self.last = kept[-1] if kept else {}
        self.step = step
        if self.ranks.leads:
            with atomic_file(self.path) as tmp:
                tmp.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def __enter__(self) -> Metrics:
        with writing_to(self.path):
            self.file = self.path.open("a", encoding="utf-8") if self.ranks.leads else None
        if self.folder:
            self.board = require_board()(str(self.folder), purge_step=self.step + 1)
        self._start_rates()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self.file, self.board):
            if file is not None:
                file.close()

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
    def add(
        self,
        step: int,
        loss: torch.Tensor,
        accuracy: torch.Tensor,
        norm: torch.Tensor,
        *,
        samples: int,
        tokens: int = 0,
        padded: int = 0,
    ) -> None:
        """Take in one step of this rank.

        Args:
            loss: of its rows. accuracy: (2,) of its rows. norm: of the gradient.
            samples: how many rows. tokens: how many the text tower was given, if it was.
            padded: how many its linear layers computed beside them.
        """
        loss = loss.detach()
        self.sums += torch.cat([torch.stack([loss, *accuracy]), torch.ones_like(self.sums[:1])])
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        self.first_bad = torch.where(bad, self.first_bad.clamp(max=step), self.first_bad)
        self.samples += samples
        self.tokens += tokens
        self.padded += padded

    def write(self, facts: Mapping[str, Any]) -> None:
        """Write one line: the facts given, the means since the last line, and the rates."""
        *sums, steps = self._mean_sums().tolist()
        seconds = max(time.perf_counter() - self.since, 1e-9)
        counts = torch.tensor([self.samples, self.tokens, self.padded], device=self.device)
        samples, tokens, padded = self.ranks.reduce(counts).tolist()
        waited = self.ranks.reduce(torch.tensor(self.waited, device=self.device), "max").item()
        self.last = {
            **facts,
            **{name: total / steps for name, total in zip(_MEANS, sums, strict=True)},
            "samples_per_s": round(samples / seconds, 1),
            **(_of_tokens(tokens, padded, seconds) if tokens else {}),
            "data_wait": round(min(waited / seconds, 1.0), 4),
        }
        if self.file is not None:
            with writing_to(self.path):
                self.file.write(json.dumps(self.last) + "\n")
                self.file.flush()
        if self.board is not None:
            for name, value in self.last.items():
                if isinstance(value, int | float) and name != "step":
                    self.board.add_scalar(name, value, self.last["step"])
            self.board.flush()
        self.sums.zero_()
        self._start_rates()

    def _mean_sums(self) -> torch.Tensor:
        return self.ranks.reduce(self.sums) / self.ranks.world

    def share_sums(self) -> torch.Tensor:
        """Replace every rank's sums by their mean, which a checkpoint can hold; return them."""
        self.sums.copy_(self._mean_sums())
        return self.sums

    def flush(self) -> None:
        """Force the lines so far to the disk, before a checkpoint that presumes them."""
        if self.file is not None:
            os.fsync(self.file.fileno())

    def refuse_nan(self, plan_name: str, batch_of: Callable[[int], int]) -> None:
        """Stop a run that has gone wrong, on all ranks at once.

        Args:
            batch_of: tells which of the plan's batches a step was.

        Raises:
            TonicsError: the loss or the gradient of a step was not finite; the line names it.
        """
        step = int(self.ranks.reduce(self.first_bad, "min"))
        if step < _FINE:
            found = f"the loss or its gradient at step {step + 1} is not a finite number"
            batch = f"batch {batch_of(step)} of plan {plan_name!r}"
            do = f"look at {batch} for broken features or vectors, or lower the learning rate"
            raise TonicsError(self.path.parent, found, do=do)


def _of_tokens(tokens: int, padded: int, seconds: float) -> dict[str, float]:
    return {
        "tokens_per_s": round(tokens / seconds, 1),
        "text_padding": round(padded / tokens, 4),
    }


def require_board() -> Any:
    """What writes for TensorBoard.

    Raises:
        MissingAsset: its package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        found = "true, and the package tensorboard is not installed"
        do = "pip install tensorboard, or read metrics.jsonl"
        raise MissingAsset("train.tensorboard", found, do=do) from error
    return SummaryWriter


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of ``metrics.jsonl`` up to the first that a crash left incomplete."""
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_bytes().splitlines(keepends=True):
            try:
                lines.append(json.loads(text if text.endswith(b"\n") else b""))
            except ValueError:
                break
    return lines


def by_phase(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Average the lines of a run phase by phase, each by the steps it is about.

    >>> of = {"phase": 0, "phase_name": "random", "accuracy_i2t": 0.5, "accuracy_t2i": 0.5}
    >>> lines = [{**of, "step": 2, "loss": 3.0}, {**of, "step": 3, "loss": 0.0}]
    >>> [(p["phase_name"], p["steps"], p["loss"]) for p in by_phase(lines)]
    [('random', 3, 2.0)]
    """
    phases: dict[int, dict[str, Any]] = {}
    before = 0
    for line in lines:
        steps, before = line["step"] - before, line["step"]
        known = {"phase": line["phase"], "phase_name": line["phase_name"], "steps": 0}
        phase = phases.setdefault(line["phase"], known | dict.fromkeys(_MEANS, 0.0))
        phase["steps"] += steps
        for name in _MEANS:
            phase[name] += (line[name] - phase[name]) * steps / phase["steps"]
    return list(phases.values())
