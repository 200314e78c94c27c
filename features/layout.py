"""Where features lie in a shard file: at whole cache lines, as does the memory they are copied to.

Arrow places a record batch's buffers at multiples of 8 bytes, as they come. A copy whose two ends
begin differently within a cache line is a fifth slower; a few spaces in a batch's own metadata,
which readers pass over, move what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from .regions import CACHE_LINE

_WORD = 8  # Arrow begins messages and buffers at multiples of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Sizes in bytes of what a file of some columns begins with.

    Attributes:
        header: before the first record batch.
        message: before the first buffer of a record batch that is not padded.
    """

    header: int
    message: int

    @classmethod
    def of(cls, schema: pa.Schema) -> Layout:
        """Find out from a file of one row (of none, the message would leave out the number)."""
        sink = pa.BufferOutputStream()
        row = {field.name: _nothing(field.type) for field in schema}
        batch = pa.RecordBatch.from_pylist([row], schema=schema)
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(batch, custom_metadata=_spaces(0))
        data = sink.getvalue().to_pybytes()
        header = len(b"ARROW1\0\0")
        header += _message_bytes(data, header)
        return cls(header=header, message=_message_bytes(data, header))

    def padding(self, batch: pa.RecordBatch, position: int) -> dict[str, str]:
        """Make the metadata with which a batch's features begin at a cache line.

        Args:
            position: where in the file the batch will be written; 0 for the first.
        """
        at = (position or self.header) + self.message
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name == "features":
                at += _whole_words(column.offsets.nbytes)
                break
            at += _whole_words(column.nbytes)
        return _spaces(-at % CACHE_LINE)


def _nothing(kind: pa.DataType) -> object:
    if pa.types.is_large_list(kind):
        return []
    return bytes(kind.byte_width) if pa.types.is_fixed_size_binary(kind) else 0


def _spaces(count: int) -> dict[str, str]:
    return {"padding": " " * count}


def _message_bytes(data: bytes, at: int) -> int:
    """Size of a message's head: a marker and a length of 4 bytes each, and so many bytes."""
    return _WORD + int.from_bytes(data[at + 4 : at + 8], "little")


def _whole_words(size: int) -> int:
    return -(-size // _WORD) * _WORD
