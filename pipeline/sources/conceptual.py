"""Conceptual Captions: ``caption<TAB>url`` lines, and images that everybody downloads anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import ConfigError
from ..config import Source
from .row import Captioned, broken, numbered_lines

# As img2dataset names files: ten thousand rows a folder, the name is the number of the row.
IMG2DATASET = "{shard:05d}/{row:09d}.jpg"
_ROWS_A_SHARD = 10_000


def read_conceptual(path: Path, source: Source) -> Iterator[Captioned]:
    """Read ``caption<TAB>url`` lines, with or without a header.

    The image id is the number of the row, from 0, or its URL where ``columns.image_id`` is "url". A
    third column is the image's path; without one it follows from the row (``image_path``). Dead
    links are usual, so an image that is absent is no reject.
    """
    url_is_id = source.columns.image_id == "url"
    path_of, row, name = _path_rule(source), 0, path.name
    for number, line in numbered_lines(path):
        fields = line.split("\t")
        if number == 1 and is_header(line):
            continue
        if len(fields) < 2 or not fields[1].strip():
            yield broken(path, number, "not a caption and a URL")
        else:
            caption, url = fields[0], fields[1].strip()
            yield Captioned(
                image_id=url if url_is_id else str(row),
                path=fields[2].strip() if len(fields) > 2 else path_of(row, url),
                caption=caption,
                where=f"{name}:{number}",
                optional=True,
            )
        row += 1


def is_header(line: str) -> bool:
    """Whether a line is the header that img2dataset asks for."""
    return line.lower().split("\t")[:2] == ["caption", "url"]


def is_conceptual(line: str) -> bool:
    """Whether the first line of a file looks like Conceptual Captions.

    >>> is_conceptual("a dog runs\\thttp://a.b/c.jpg")
    True
    """
    second = line.partition("\t")[2].strip().lower()
    return is_header(line) or second.startswith(("http://", "https://"))


def _path_rule(source: Source) -> Callable[[int, str], str]:
    """How an image's path follows from its row and URL.

    ``images`` is a folder, in which files are named as img2dataset does, or a pattern such as
    "{row}.jpg" with the fields row, shard (row // 10,000) and md5 (of the URL).

    Raises:
        ConfigError: the pattern has other fields.
    """
    pattern = source.images if "{" in source.images else IMG2DATASET

    def rule(row: int, url: str) -> str:
        shard = row // _ROWS_A_SHARD
        if not hashed:
            return pattern.format(row=row, shard=shard)
        md5 = hashlib.md5(url.encode("utf-8", "surrogateescape")).hexdigest()
        return pattern.format(row=row, shard=shard, md5=md5)

    hashed = "{md5" in pattern
    try:
        rule(0, "")
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(
            "tonics.toml: ingest.sources.images",
            f"value {source.images!r}",
            expected="a folder, or a pattern of {row}, {shard} and {md5} such as '{row:09d}.jpg'",
        ) from error
    return rule
