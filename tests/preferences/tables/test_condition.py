"""Conditions on columns: against an evaluation row by row, and against hostile text."""

from __future__ import annotations

import operator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.errors import LONGEST_MESSAGE, UserError
from probing.preferences.tables.condition import DEEPEST, LONGEST, parse
from probing.preferences.tables.condition_rows import rows_where

ROWS = [
    {"n": 1, "x": 0.5, "word": "a", "other word": "b", "sure": True},
    {"n": 2, "x": None, "word": "it's", "other word": "a", "sure": False},
    {"n": 3, "x": 2.0, "word": None, "other word": "é`", "sure": True},
    {"n": 2**53 + 1, "x": -1.5, "word": "a", "other word": "a", "sure": None},
]
TABLE = pd.DataFrame(ROWS)
COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("n == 2", [1]),
        ("n >= 2 and x > 0", [2]),
        ("n>=2&x>0", [2]),
        ("n == 1 or n == 3", [0, 2]),
        ("n == 1 | n == 2 & x > 0", [0]),
        ("(n == 1 | n == 2) & x > 0", [0]),
        ("word == 'it\\'s'", [1]),
        ('word == "it\'s"', [1]),
        ("word in ['a', 'c']", [0, 3]),
        ("word not in ['a', 'c']", [1]),
        ("not word in ['a', 'c']", [1]),
        ("word == `other word`", [3]),
        ("`other word` == 'é`'", [2]),
        ("sure == true", [0, 2]),
        ("sure != True", [1]),
        ("0 > x", [3]),
        ("x == -1.5", [3]),
        ("x == - 15e-1", [3]),
        ("x < n", [0, 2, 3]),
        ("n == 9007199254740993", [3]),
        ("n < 1e999", [0, 1, 2, 3]),
        ("n > 0.5 and n < 1.5", [0]),
        ("word < 'b'", [0, 3]),
        ("~ n == 1", [1, 2, 3]),
        # A gap fulfils neither a comparison nor its negation, but does not undo what the other side decides.
        ("x == 0.5", [0]),
        ("x != 0.5", [2, 3]),
        ("not x == 0.5", [2, 3]),
        ("x == 0.5 or n == 2", [0, 1]),
        ("not (x == 0.5 and n == 1)", [1, 2, 3]),
    ],
)
def test_conditions_keep_the_right_rows(condition, rows):
    assert np.flatnonzero(rows_where(TABLE, condition)).tolist() == rows


def test_categories_dates_and_backticks():
    table = pd.DataFrame(
        {
            "model": pd.Categorical(["flux", "sd2", None]),
            "level": pd.Categorical([1.0, 2.0, 3.0]),
            "day": pd.to_datetime(["2024-01-01", "2024-02-01", None]),
            "a`b.c": [1, 2, 3],
            "nothing": [None, None, None],
        }
    )
    assert rows_where(table, "model != 'flux'").tolist() == [False, True, False]
    assert rows_where(table, "level >= 2").tolist() == [False, True, True]
    assert rows_where(table, "day >= '2024-01-15'").tolist() == [False, True, False]
    assert rows_where(table, "day < '2024-01-15T00:00:00+00:00'").tolist() == [True, False, False]
    assert rows_where(table, "`a``b.c` == 2").tolist() == [False, True, False]
    assert not rows_where(table, "nothing == 1 or not nothing == 'x'").any()


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("", "has a syntax error at its end; write comparisons of a column with a value"),
        ("n >", "has a syntax error at its end"),
        ("n == 1)", r"at position 7 \('\)'\)"),
        ("(n == 1", "at its end"),
        ("n", "at its end"),
        ("sure", "at its end"),
        ("not", "at its end"),
        ("n >> 3", r"at position 4 \('> 3'\)"),
        ("n + 1 == 2", r"at position 3 \('\+ 1 == 2'\)"),
        ("0 < n < 3", r"at position 7 \('< 3'\)"),
        ("n == 'a", "at position 6"),
        ("n == 1 n == 2", "at position 8"),
        ("n == 0x10", "at position 6"),
        ("n == 1_000", "at position 6"),
        ("-n == 1", r"at position 2 \('n == 1'\)"),
        ("n == -'a'", "at position 7"),
        ("n in []", "at position 7"),
        ("n in 1", "at position 6"),
        ("n in [x]", "at position 7"),
        ("1 in [1]", "at position 3"),
        ("n.real == 1", r"at position 2 \('\.real == 1'\)"),
        ("f(n) == 1", "names the unknown column 'f' at position 1.*the columns are n, x, word, other word, sure"),
        ("@n == 1", "at position 1"),
        ("@pd.io.common.os.system('touch made')", "at position 1"),
        ("__import__('os').system('touch made')", "unknown column '__import__'"),
        ("other word == 'a'", "unknown column 'other'"),
        ("1 == 1", "compares two values at position 1"),
        ("word == 1", "'word' is compared with 1; compare it with text in quotes"),
        ("word in ['a', 1]", "'word' is compared with 1; compare it with text in quotes"),
        ("n == '1'", "'n' is compared with '1'; compare it with a number"),
        ("n == true", "'n' is compared with True; compare it with a number"),
        ("sure == 1", "'sure' is compared with 1; compare it with true or false"),
        ("sure > false", "compare it by == or !="),
        ("word < n", r"'word' \(text\) and 'n' \(number\); compare columns of one type"),
        ("not " * (DEEPEST + 1) + "n == 1", "nests more than 50 parentheses"),
        ("(" * 5000 + "n == 1" + ")" * 4000, "nests more than 50 parentheses"),
        ("n == 1 or " * LONGEST + "n == 1", "has 100,006 characters, expected at most 10,000"),
    ],
)
def test_invalid_conditions_are_one_sentence(condition, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        rows_where(TABLE, condition)
    assert not list(tmp_path.iterdir())


def test_columns_that_cannot_be_compared_are_named():
    table = pd.DataFrame({"mixed": [1, "a"], "lists": [[1], [2]], "day": pd.to_datetime(["2024-01-01"] * 2)})
    with pytest.raises(UserError, match="'mixed' holds values of several types"):
        rows_where(table, "mixed == 1")
    with pytest.raises(UserError, match="'lists' holds .*list<.*, which cannot be compared"):
        rows_where(table, "lists == 1")
    with pytest.raises(UserError, match="'day' is compared with 'May'; compare it with a date"):
        rows_where(table, "day == 'May'")


VALUES = {"n": st.integers(-3, 3), "x": st.floats(-3, 3, width=16), "w": st.sampled_from(["", "a", "b'", 'c"', "\\"])}
NAMES = {"n": "n", "x": "x", "w": "`a word`"}
ROW = st.fixed_dictionaries({"n": st.none() | VALUES["n"], "x": st.none() | VALUES["x"], "w": st.none() | VALUES["w"]})


@st.composite
def comparisons(draw):
    """The text of a comparison, and its value of a row: True, False, or None for unknown."""
    column = draw(st.sampled_from(sorted(VALUES)))
    if draw(st.booleans()):
        values = draw(st.lists(VALUES[column], min_size=1, max_size=3))
        negated = draw(st.booleans())
        text = f"{NAMES[column]} {'not ' * negated}in [{', '.join(map(written, values))}]"
        return text, lambda row: None if row[column] is None else (row[column] in values) != negated
    sign, value = draw(st.sampled_from(sorted(COMPARE))), draw(VALUES[column])
    if draw(st.booleans()):
        text, left, right = f"{NAMES[column]} {sign} {written(value)}", (lambda row: row[column]), (lambda row: value)
    else:
        text, left, right = f"{written(value)}{sign}{NAMES[column]}", (lambda row: value), (lambda row: row[column])
    return text, lambda row: None if row[column] is None else COMPARE[sign](left(row), right(row))


def written(value):
    if not isinstance(value, str):
        return repr(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def joined(parts):
    def join(left, word, right):
        conjunction = word in ("and", "&")

        def value(row):
            sides = (left[1](row), right[1](row))
            if (not conjunction) in sides:
                return not conjunction
            return None if None in sides else conjunction

        return f"({left[0]}) {word} ({right[0]})", value

    def negate(part, word):
        return f"{word} ({part[0]})", lambda row: None if part[1](row) is None else not part[1](row)

    return st.builds(join, parts, st.sampled_from(["and", "&", "or", "|"]), parts) | st.builds(
        negate, parts, st.sampled_from(["not", "~"])
    )


CONDITIONS = st.recursive(comparisons(), joined, max_leaves=8)


def check_equal_row_by_row(rows, condition):
    text, value = condition
    table = pd.DataFrame(rows, columns=["n", "x", "w"]).rename(columns={"w": "a word"})
    assert rows_where(table, text).tolist() == [value(row) is True for row in rows]


@given(st.lists(ROW, min_size=1, max_size=6), CONDITIONS)
@settings(max_examples=60)
def test_conditions_equal_an_evaluation_row_by_row(rows, condition):
    check_equal_row_by_row(rows, condition)


def check_only_one_sentence(text):
    try:
        kept = rows_where(TABLE, text)
    except UserError as error:
        message = str(error)
    else:
        message = "" if kept.dtype == bool and kept.shape == (len(TABLE),) else "not a row mask\n"
    assert message == "" or (message.isprintable() and len(message) < LONGEST_MESSAGE + 10)


PIECES = st.sampled_from(
    [
        "n",
        "x",
        "word",
        "`other word`",
        "sure",
        "==",
        "<",
        ">=",
        "and",
        "or",
        "not",
        "in",
        "[",
        "]",
        "(",
        ")",
        ",",
        "-",
        "1",
        "2.5",
        "'a'",
        '"',
        "'",
        "`",
        "true",
        "@",
        ".",
        "()",
        "__class__",
        "\\",
        "\x00",
        "é",
        "1e400",
        "~",
        "|",
    ]
)
TEXTS = st.text(max_size=40) | st.lists(PIECES, max_size=14).map(" ".join) | st.lists(PIECES, max_size=14).map("".join)


@given(TEXTS)
@settings(max_examples=80)
def test_any_text_is_a_condition_or_one_sentence(text):
    check_only_one_sentence(text)


@pytest.mark.slow
@given(st.lists(ROW, min_size=1, max_size=6), CONDITIONS, TEXTS)
@settings(max_examples=5000)
def test_many_conditions(rows, condition, text):
    check_equal_row_by_row(rows, condition)
    check_only_one_sentence(text)


def test_parsing_needs_no_table():
    assert parse("a == 1", ["a"]) == parse("( a==1.0 )", ["a"])
