"""What the documentation shows can be asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "ontology.md"
QUESTIONS = re.findall(r"```sql\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.split("FROM", 1)[1][:30].strip())
def test_questions_about_the_ontology(built: Path, question: str) -> None:
    from tonics.ontology.questions import run_query

    attach = {"detections": built / "detections.duckdb"}
    assert run_query(built / "ontology.duckdb", question, attach=attach).num_columns > 1


def test_ten_questions_are_there() -> None:
    assert len(QUESTIONS) >= 10
    numbered = re.findall(r"^\*\*(\d+)\.", PAGE.read_text(encoding="utf-8"), re.M)
    assert numbered == [str(n) for n in range(1, 11)]
