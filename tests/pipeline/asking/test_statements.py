"""Statements end where a semicolon does, unless it is quoted."""

from __future__ import annotations

import pytest

from tonics.pipeline.asking.statements import split_statements, statement_at


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("SELECT 1;", ["SELECT 1"], ""),
        ("SELECT 1; SELECT 2", ["SELECT 1"], " SELECT 2"),
        ("SELECT ';'", [], "SELECT ';'"),
        ("SELECT 'it''s; ' ; x", ["SELECT 'it''s; '"], " x"),
        ('SELECT 1 AS "a;b";', ['SELECT 1 AS "a;b"'], ""),
        ("SELECT e'it\\'s;';", ["SELECT e'it\\'s;'"], ""),
        ("SELECT $$;$$, $a$;$$;$a$;", ["SELECT $$;$$, $a$;$$;$a$"], ""),
        ("SELECT 1 -- ; not yet\n;", ["SELECT 1 -- ; not yet"], ""),
        ("/* ; */ SELECT 6/2-1;", ["SELECT 6/2-1"], ""),
        ("SELECT 'open;", [], "SELECT 'open;"),
        ("SELECT 1 /* open;", [], "SELECT 1 /* open;"),
        (";; -- nothing\n;", [], ""),
        ("", [], ""),
    ],
)
def test_split(text: str, statements: list[str], rest: str) -> None:
    found, left = split_statements(text)
    assert [statement.text for statement in found] == statements
    assert left == rest


def test_lines_are_counted_from_the_statements_first_word() -> None:
    text = "SELECT 1;\n-- two\n\nSELECT\n2; SELECT 3;\n\nSELECT 4"
    found, rest = split_statements(text)
    last = statement_at(text, len(text) - len(rest), len(text))
    assert [statement.line for statement in [*found, last]] == [1, 4, 5, 7]
    assert last.text == "SELECT 4"


def test_a_long_text_is_cut_in_linear_time() -> None:
    text = "SELECT '" + "x;" * 200_000 + "';" + "-" * 200_000
    assert len(split_statements(text)[0]) == 1
