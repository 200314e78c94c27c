"""Claim: on a GPU training is bound by arithmetic: 40 % of the peak, and 2 % waiting for data.

Runs steps of the trainer, text encoder and all, over made-up regions and captions: a text encoder
of the asked shape with random weights, captions of 8 tokens and more, every batch another one.
MFU counts real tokens and regions only: padding that a layer computes does not raise it. Its FLOPs
are those of the linear layers as they are called (their shapes, the rows there really are, and
what backward needs of them) and of the attention between a caption's tokens; the peak is the
device's data sheet's, or on a CPU that of a large matrix product in the same run. ``streamed``
reads features from a store in the page cache, ``resident`` has them on the device.

    python benchmarks/train.py                           # on a GPU
    python benchmarks/train.py --small                   # on a CPU
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import print_heading, print_table
from regions import write_store_and_plan

from tonics.artifact import hash_bytes
from tonics.features import FeatureStore
from tonics.train import Plan
from tonics.train.config import TrainConfig
from tonics.train.model.tokens import Tokens
from tonics.train.objective import compile_towers
from tonics.train.ranks import ALONE
from tonics.train.state import State, TextSide, begin
from tonics.train.stream import Batch, resident, stream
from tonics.train.trainer import train_step

# Layers, width, heads; the inner width is four times as large.
ENCODERS = {"bert-base": (12, 768, 12), "minilm": (6, 384, 12), "tiny": (4, 256, 4)}
PEAKS = {  # TFLOP/s in bfloat16 without sparsity, from the data sheets; the first that fits counts
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "H200": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
}
VOCABULARY, SHORTEST, WARM_UP = 30_522, 8, 3


def main() -> None:
    """Run every case, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--encoder", choices=ENCODERS, default="bert-base")
    parser.add_argument("--batch", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--regions", type=int, nargs="+", default=[36])
    parser.add_argument("--dim", type=int, default=2048, help="numbers of a region")
    parser.add_argument("--tokens", type=float, default=14, help="of a caption, on average")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device")
    parser.add_argument("--small", action="store_true", help="a tiny encoder, one CPU thread")
    args = parser.parse_args()
    if args.small:
        torch.set_num_threads(1)  # two wait for one another on shared cores: train_threads.py
        args.encoder, args.batch, args.regions, args.dim, args.steps = "tiny", [256], [12], 256, 12
    args.precision = args.precision or ("float32" if args.device == "cpu" else "bfloat16")

    print_heading(__doc__, "torch", "transformers")
    peak = args.peak_tflops or peak_of(args.device, args.precision)
    compiled = ", compiled" if args.compile else ""
    print(f"{name_of(args.device)}, {args.precision}{compiled}, peak {peak:.3g} TFLOP/s")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for batch_size in args.batch:
            for regions in args.regions:
                case = prepare(Path(folder) / f"{batch_size}-{regions}", args, batch_size, regions)
                for kind in ("streamed", "resident"):
                    found = run(case, kind)
                    rows.append([args.encoder, batch_size, regions, kind, *found.shown(peak)])
    columns = ["encoder", "batch", "regions", "input", "samples/s", "tokens/s", "TFLOP/s", "MFU"]
    print_table([*columns, "data wait"], rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is trained, on what, and for how many steps."""

    folder: Path
    config: TrainConfig
    captions: Captions
    encoder: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the timed steps of a case came to, in all."""

    seconds: float
    samples: int
    tokens: int
    flops: float
    waited: float

    def shown(self, peak: float) -> list[str]:
        """The cells of its row."""
        rate = self.flops / self.seconds / 1e12
        return [
            f"{self.samples / self.seconds:,.0f}",
            f"{self.tokens / self.seconds:,.0f}",
            f"{rate:.3g}",
            f"{rate / peak:.1%}",
            f"{self.waited / self.seconds:.1%}",
        ]


class Captions:
    """Made-up captions as token ids; pair k has caption k."""

    kind = "encoder"

    def __init__(self, count: int, mean: float) -> None:
        rng = np.random.default_rng(0)
        lengths = SHORTEST + rng.poisson(max(mean - SHORTEST, 0), count)
        ids = rng.integers(1000, VOCABULARY, lengths.sum(), dtype=np.int32)
        self.tokens = Tokens(ids=ids, cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]))
        self.identity = hash_bytes(ids.data.cast("B"))

    def __call__(self, pairs: np.ndarray) -> Any:
        return self.tokens.take(pairs).packed()


def prepare(folder: Path, args: argparse.Namespace, batch_size: int, regions: int) -> Case:
    """Write the store and the plan of a case."""
    folder.mkdir()
    batches, images = args.steps + WARM_UP, batch_size + batch_size // 4
    sizes = {"images": images, "regions": regions, "dim": args.dim, "batch_size": batch_size}
    write_store_and_plan(folder, batches=batches, **sizes)
    config = TrainConfig(
        text="finetune",
        encoder=args.encoder,
        precision=args.precision,
        compile=args.compile,
        log_every=10**6,
    )
    captions = Captions(images, args.tokens)
    return Case(
        folder=folder, config=config, captions=captions, encoder=args.encoder, device=args.device
    )


def run(case: Case, kind: str) -> Found:
    """Train on all batches of a case, and time those after the first few."""
    plan, store = Plan(case.folder / "plan"), FeatureStore(case.folder / "store")
    encoder = made_up_encoder(case.encoder)
    text = TextSide(source=case.captions, dim=encoder.config.hidden_size, encoder=encoder)
    device = torch.device(case.device)
    batches = source(case, kind, plan, store, device)
    plain = replace(case.config, compile=False)
    state = begin(plain, plan, store, text, case.folder / kind, device, ALONE)
    first = next(iter(stream(plan, store, case.captions, prefetch=0)))
    flops = count_flops(state, first, case.captions.tokens.lengths)
    if case.config.compile:
        compile_towers(state.model)
    samples, tokens, total, started = 0, 0, 0.0, 0.0
    with contextlib.closing(iter(batches)) as ready:
        for step, batch in enumerate(state.metrics.waiting(ready)):
            if step == WARM_UP:
                settle(device)
                state.metrics.waited, started = 0.0, time.perf_counter()
            state.set_lr(step)
            train_step(state, step, batch)
            if step >= WARM_UP:
                samples += len(batch)
                tokens += len(batch.texts.rows)
                total += flops(batch)
        settle(device)
        seconds = time.perf_counter() - started
    waited = state.metrics.waited
    return Found(seconds=seconds, samples=samples, tokens=tokens, flops=total, waited=waited)


def source(
    case: Case, kind: str, plan: Plan, store: FeatureStore, device: torch.device
) -> Iterable[Batch]:
    """The batches of a plan, from the store or from the device."""
    if kind == "streamed":
        return stream(plan, store, case.captions, device=device)
    return resident(plan, store, case.captions, device=device)


def made_up_encoder(name: str) -> Any:
    """A BERT of a shape, with random weights."""
    from transformers import BertConfig, BertModel

    layers, width, heads = ENCODERS[name]
    shape = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": width}
    config = BertConfig(vocab_size=VOCABULARY, intermediate_size=4 * width, **shape)
    return BertModel(config, add_pooling_layer=False)


@dataclass(slots=True)
class Layer:
    """A linear layer as one batch went through it.

    Attributes:
        size: numbers in its matrix. passes: forward, and what backward computes of it.
        rows: it was given.
    """

    size: int
    passes: int
    rows: int = 0


def count_flops(state: State, batch: Batch, tokens: np.ndarray) -> Any:
    """Watch one batch, and make what tells the FLOPs that training on any batch has to take.

    ``tokens`` are those of each caption: no device is asked for them.

    A layer that was given as many rows as there are pairs works on images or captions; any other
    one on regions or tokens, of which only the real ones count, however many it was given.
    """
    layers: dict[str, Layer] = {}
    hooks = []
    for name, module in state.model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".pool." not in name:

            def watch(module: Any, given: Any, out: Any, name: str = name) -> None:
                passes = 1 + given[0].requires_grad + module.weight.requires_grad
                layer = layers.setdefault(name, Layer(module.weight.numel(), passes))
                layer.rows += given[0].numel() // given[0].shape[-1]

            hooks.append(module.register_forward_hook(watch))
    state.objective(batch.to(state.device))
    for hook in hooks:
        hook.remove()
    shape, pairs = state.model.text.encoder.config, len(batch)

    def flops(batch: Batch) -> float:
        lengths = tokens[batch.pairs].astype(np.float64)
        rows = {"image": len(batch.features), "text": int(lengths.sum())}
        total = 3 * 4 * shape.num_hidden_layers * shape.hidden_size * float((lengths**2).sum())
        for name, layer in layers.items():
            count = len(batch) if layer.rows == pairs else rows[name.partition(".")[0]]
            total += 2 * layer.passes * layer.size * count
        return total

    return flops


def peak_of(device: str, precision: str) -> float:
    """TFLOP/s that a device can do at most: as its maker says, or, of a CPU, as measured now."""
    if device == "cpu":
        kind = getattr(torch, precision)
        a, b = torch.randn(2, 2048, 2048).to(kind)
        best = min(_seconds(a, b) for _ in range(5))
        return 2 * 2048**3 / best / 1e12
    name = name_of(device)
    for known, peak in PEAKS.items():
        if all(word in name for word in known.split()):
            return peak
    raise SystemExit(f"no peak is known of {name}: give --peak-tflops")


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.perf_counter()
    a @ b
    return time.perf_counter() - start


def name_of(device: str) -> str:
    """What a device is called."""
    if device == "cpu":
        return f"CPU, {torch.get_num_threads()} threads"
    return torch.cuda.get_device_name(device)


def settle(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
