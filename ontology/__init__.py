"""What a caption says: its nouns, their WordNet synsets, and the database that arranges them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .database import Ontology
    from .senses import sense_of

__all__ = ["Ontology", "sense_of"]


def __getattr__(name: str) -> Any:
    """Import on first use: DuckDB, nltk and spaCy cost seconds, ``--help`` none."""
    if name == "Ontology":
        from .database import Ontology

        return Ontology
    if name == "sense_of":
        from .senses import sense_of

        return sense_of
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
