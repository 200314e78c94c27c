"""What a person asks a finished dataset: SQL once, from a file or at a prompt, and its objects."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """How an answer is printed or written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"
