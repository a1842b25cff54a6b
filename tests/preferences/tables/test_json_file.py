"""Records of JSON files in a stream, against ``json.load``."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing.errors import UserError
from probing.preferences.tables import json_file
from probing.preferences.tables.json_file import (
    identifier,
    label,
    many,
    number,
    optional,
    read_json,
    text,
    whole_number,
)

WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter(lambda word: word.strip())
RECORDS = st.lists(
    st.fixed_dictionaries({"prompt": WORDS, "score": st.none() | st.floats(allow_nan=False, allow_infinity=False)}),
    min_size=1,
    max_size=40,
)


@given(RECORDS, st.booleans(), st.booleans(), st.integers(1, 60))
def test_columns_are_those_of_json(tmp_path_factory, rows, lines, escaped, at_once):
    path = tmp_path_factory.mktemp("json") / "rows.json"
    texts = [json.dumps(row, ensure_ascii=escaped) for row in rows]
    path.write_text("\n".join(texts) if lines else "[" + ", ".join(texts) + "]", encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        # Small pieces, so that records cross their borders; small batches, so that there are several.
        patch.setattr(json_file, "_CHUNK_CHARACTERS", at_once)
        patch.setattr(json_file, "_BATCH", 7)
        table = read_json(path, {"prompt": text}, {"score": number})
    assert table["prompt"].to_pylist() == [row["prompt"] for row in rows]
    assert table["score"].to_pylist() == [row["score"] for row in rows]


@pytest.mark.parametrize(
    ("reading", "good", "bad"),
    [
        (text, [("a", "a"), (" a ", " a ")], ["", "  ", None, 3, ["a"]]),
        (identifier, [("a", "a"), (7, "7")], ["", None, True, 1.5]),
        (label, [("a", "a"), (None, None), ("null", None), ("", None)], [3, ["a"]]),
        (number, [(1, 1.0), ("0.98", 0.98), (None, None), ("null", None), (float("nan"), None)], ["high", True, [1]]),
        (whole_number, [(1, 1), ("2", 2), (3.0, 3)], [1.5, None, "x", True]),
        (many(number, "numbers"), [([1, 2], [1, 2]), ("[1, 2]", [1, 2])], ["[1", [], ["x"], 3, None, {}]),
        (optional(many(number, "numbers")), [(None, None), ("null", None), ([1], [1])], [[], "x"]),
    ],
)
def test_readings_accept_published_and_stringified_values(reading, good, bad):
    for value, read in good:
        assert reading(value) == read
    for value in bad:
        with pytest.raises(ValueError):
            reading(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "contains no records"),
        ("[]", "contains no records"),
        ("[", "ends in the middle of its list"),
        ('[{"prompt": "a"}', "ends in the middle of its list"),
        ('[{"prompt": "a"}, {"prom', "is no JSON at record 1"),
        ('[{"prompt": "a"}, 3]', "Record 1 of .* is 3, expected fields with values"),
        ('[{"prompt": "a"}, {}]', "Record 'row1' of .* lacks the field prompt; it has none"),
        ('[{"prompt": "a"}, {"prompt": ["b"]}]', r"Record 'row1' of .* has the prompt \['b'\], expected a text"),
        ('{"prompt": {"deep": [[[[1]]]]}}', "Record 'row0' of .* has the prompt .*, expected a text"),
        ('{"prompt": "a"} nonsense', "is no JSON at record 1"),
        ("prompt,path\na,b", "is no JSON at record 0"),
    ],
)
def test_bad_files_are_one_sentence_with_the_record(tmp_path, content, message):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_json(path, {"prompt": text}, prefix="row")
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"prompt": "\xff\xfe"}]')
    with pytest.raises(UserError, match="no UTF-8 text"):
        read_json(path, {"prompt": text})


def test_a_field_that_appears_late_is_a_column_with_gaps(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "_BATCH", 2)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"prompt": f"p{i}", **({"score": i} if i > 2 else {})} for i in range(5)]))
    table = read_json(path, {"prompt": text}, {"score": number, "never": number})
    assert table["score"].to_pylist() == [None, None, None, 3.0, 4.0]
    assert table.column_names == ["prompt", "score"]
