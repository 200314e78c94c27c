"""Token ids on disk: captions are tokenised once, whoever needs them afterwards maps a file.

A file is one Arrow table of one column, a list of ids a caption; its name is a hash of all that
decides them, and its metadata holds a hash of what they are.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...artifact import atomic_file, hash_bytes, hash_file, hash_json
from ..model.tokens import Tokens

log = logging.getLogger(__name__)

TOKENS_VERSION = 1
TOKENS_SCHEMA = pa.schema([("ids", pa.large_list(pa.int32()))])
_HASH = b"xxh3"
_STATE = ("truncation", "padding")  # of a fast tokenizer: as its last call left them


def tokens_identity(tokenizer: Any, captions_hash: str, max_tokens: int) -> str:
    """Hash all that decides the tokens of some captions.

    Args:
        captions_hash: of the captions, in their order.
    """
    return hash_json(
        {
            "version": TOKENS_VERSION,
            "tokenizer": tokenizer_hash(tokenizer),
            "truncation_side": getattr(tokenizer, "truncation_side", "right"),
            "transformers": version("transformers"),
            "tokenizers": version("tokenizers"),
            "captions": captions_hash,
            "max_tokens": min(max_tokens, tokenizer.model_max_length),
        }
    )


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash what a tokenizer is made of, however often it was used."""
    kind = type(tokenizer).__name__
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        made_of = json.loads(backend.to_str())
        return hash_json([kind, {k: v for k, v in made_of.items() if k not in _STATE}])
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
        return hash_json([kind, *([file.name, hash_file(file)] for file in files)])


def kept_tokens(path: Path, make: Callable[[], Tokens]) -> Tokens:
    """Map the tokens a file holds; make it when it is not there, or is damaged.

    Of several ranks on one machine that come at once, one makes it and the others wait.
    """
    if (found := read_tokens(path)) is not None:
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(path.parent):
        if (found := read_tokens(path)) is not None:
            return found
        if path.exists():
            log.warning("%s is damaged and is made anew", path)
        write_tokens(path, tokens := make())
    return read_tokens(path) or tokens


def write_tokens(path: Path, tokens: Tokens) -> None:
    """Write tokens, whole or not at all."""
    offsets, ids = pa.array(tokens.cu_seqlens, pa.int64()), pa.array(tokens.ids, pa.int32())
    rows = pa.LargeListArray.from_arrays(offsets, ids)
    schema = TOKENS_SCHEMA.with_metadata({_HASH: _content_hash(tokens).encode()})
    with atomic_file(path) as tmp, pa.ipc.new_file(str(tmp), schema) as writer:
        writer.write_batch(pa.record_batch([rows], schema=schema))


def read_tokens(path: Path) -> Tokens | None:
    """Map the tokens of a file; None where it is not there or does not hold what it held."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        rows = reader.get_batch(0).column(0)
        said = (reader.schema.metadata or {}).get(_HASH, b"").decode()
    except (OSError, ValueError, pa.ArrowException):
        return None
    if rows.type != TOKENS_SCHEMA.field(0).type:
        return None
    tokens = Tokens(ids=rows.values.to_numpy(), cu_seqlens=rows.offsets.to_numpy())
    return tokens if _content_hash(tokens) == said else None


def _content_hash(tokens: Tokens) -> str:
    arrays = (np.ascontiguousarray(a) for a in (tokens.ids, tokens.cu_seqlens))
    return hash_json([hash_bytes(array.data.cast("B")) for array in arrays])


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which the kernel drops when the process ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
