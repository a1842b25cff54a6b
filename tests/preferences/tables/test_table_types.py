"""What columns hold: the same types from every format, anything else refused by column and type."""

from __future__ import annotations

import datetime
import decimal
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probing import preferences
from probing.errors import LONGEST_MESSAGE, UserError, listed, shown
from probing.preferences.comparisons import from_comparisons
from probing.preferences.rewards import read_rewards
from probing.preferences.tables.column_types import infer_type, numbers
from tests.preferences.published import write as write_published

ROWS = {"prompt": ["a cat", "an owl", "a dog"], "chosen": ["a.png"] * 3, "rejected": ["b.png", "c.png", "d.png"]}


def parquet(folder, **columns):
    path = folder / "mine.parquet"
    pq.write_table(pa.table({**ROWS, **columns}), path)
    return str(path)


def jsonl(folder, *changes):
    path = folder / "mine.jsonl"
    rows = [{name: values[number] for name, values in ROWS.items()} for number in range(3)]
    for row, change in zip(rows, changes, strict=False):
        row.update(change)
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def csv(folder, header, *cells):
    path = folder / "mine.csv"
    rows = [f"{p},{c},{r},{cell}" for p, c, r, cell in zip(*ROWS.values(), cells, strict=True)]
    path.write_text("\n".join([f"prompt,chosen,rejected,{header}", *rows]))
    return str(path)


def refused(path):
    with pytest.raises(UserError) as error:
        preferences.load_pairs(path)
    message = str(error.value)
    assert message.isprintable() and len(message) <= LONGEST_MESSAGE + 10
    return message


CHAT = [[{"role": "user", "content": f"a cat {number}"}] for number in range(3)]
PICTURES = [{"bytes": b"\x89PNG" * 1000, "path": f"{number}.png"} for number in range(3)]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (CHAT, "list<element: struct<content: string, role: string>>"),
        ([["a"], ["b"], []], "list<element: string>"),
        ([{"text": "a"}] * 3, "struct<text: string>"),
        ([b"a", b"b", b"c"], "binary"),
        ([True, False, None], "bool"),
        ([1.5, 2.0, None], "double"),
        ([1, 2, 3], "int64"),
        ([datetime.datetime(2024, 1, 1)] * 3, r"timestamp[us]"),
        ([decimal.Decimal("1.5")] * 3, "decimal128(2, 1)"),
    ],
)
def test_prompts_and_paths_in_parquet_are_strings(tmp_path, values, found):
    message = refused(parquet(tmp_path, prompt=values))
    assert message.startswith("The column prompt of ") and message.endswith("; prompts are strings.")
    kinds = found.replace("content: string, role: string", "role: string, content: string")
    assert f"of type {found}" in message or f"of type {kinds}" in message
    assert "pictures are given by their paths, which are strings" in refused(parquet(tmp_path, rejected=values))
    assert "splits, facets and models are strings" in refused(parquet(tmp_path, facet=values))


def test_a_picture_inside_is_refused_without_its_bytes(tmp_path):
    message = refused(parquet(tmp_path, chosen=PICTURES))
    assert "struct<bytes: binary, path: string>; pictures are given by their paths, which are strings" in message
    assert "PNG" not in message and len(message) < 300


def test_whole_numbers_are_ids_and_categories_are_strings(tmp_path):
    columns = {"prompt_id": [1, 2, 3], "pair_id": pa.array([7, 8, 9], pa.int16())}
    data = preferences.load_pairs(parquet(tmp_path, **columns, prompt=pa.array(ROWS["prompt"]).dictionary_encode()))
    assert data.pairs["pair_id"].tolist() == ["7", "8", "9"]
    assert set(data.items["prompt_id"]) == {"1", "2", "3"}
    assert set(data.items["prompt"]) == set(ROWS["prompt"])
    assert "ids are strings or whole numbers" in refused(parquet(tmp_path, prompt_id=[1.0, 2.0, 3.0]))
    assert "Record 1 of mine has no prompt_id" in refused(parquet(tmp_path, prompt_id=[1, None, 3]))
    assert preferences.load_pairs(jsonl(tmp_path, *({"pair_id": n} for n in (1, "b", 3)))).pairs["pair_id"][0] == "1"
    assert "a string or a whole number, not float" in refused(jsonl(tmp_path, {"pair_id": 1.0}))


@pytest.mark.parametrize(
    ("value", "found"), [(CHAT[0], "list"), ({"a": "b"}, "dict"), (3, "int"), (0.5, "float"), (True, "bool")]
)
def test_prompts_in_json_are_strings(tmp_path, value, found):
    assert f"Record 1 of {tmp_path}/mine.jsonl has the prompt" in refused(jsonl(tmp_path, {}, {"prompt": value}))
    assert f"expected a string, not {found}" in refused(jsonl(tmp_path, {}, {"prompt": value}))
    assert f"expected a string, not {found}" in refused(jsonl(tmp_path, {"split": value}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{"x": [1]}], "Record 0 .* has the x .1., expected a string, a number, or true or false, not list"),
        ([{"x": 1}, {"x": "one"}], "The field x of .* holds values of several types .int, str."),
        ([{"x": True}, {"x": 1}], "holds values of several types"),
        ([{"x": 2**70}], "holds whole numbers of more than 64 bits"),
        ([{"prompt": "\ud800"}], "Record 0 .* expected a string of whole Unicode characters"),
        ([{"\ud800": 1}], "has a field named"),
        ([{"": 1}], "has a field named ''"),
        ([{"prompt": None}], "Record 0 of mine has no prompt"),
        ([{f"c{number}": 1 for number in range(2000)}], "has more than 1,000 fields"),
        ([{"x": float("inf")}, {"x": 1.0}], "Record 'pair0' has the x inf, which is no number"),
    ],
)
def test_bad_json_is_refused_by_field(tmp_path, changes, message):
    assert re.search(message, refused(jsonl(tmp_path, *changes)))


def test_json_that_repeats_a_field_or_nests_endlessly(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "a", "chosen": "x", "rejected": "y", "prompt": "b"}')
    assert "Record 0 of" in refused(str(path)) and "has the field 'prompt' twice" in refused(str(path))
    path.write_text('{"a": ' + "[" * 100_000)
    assert "nests too many lists" in refused(str(path))


def test_extra_columns_have_one_plain_type(tmp_path):
    columns = {
        "score": [1, None, 3],
        "cost": [decimal.Decimal("1.50")] * 3,
        "day": pa.array([1, 2, None], pa.date32()),
        "sure": [True, None, False],
        "word": pa.array(["NA", None, "007"]).dictionary_encode(),
    }
    pairs = preferences.load_pairs(parquet(tmp_path, **columns)).pairs
    assert pairs["score"].tolist()[::2] == [1.0, 3.0] and pairs["cost"].tolist() == [1.5] * 3
    assert pairs["day"][0] == pd.Timestamp("1970-01-02") and pairs["word"].tolist()[::2] == ["NA", "007"]
    assert pairs["sure"].tolist() == [True, None, False]
    for bad in ([[1], [2], [3]], PICTURES, [b"a", b"b", b"c"]):
        message = refused(parquet(tmp_path, other=bad))
        assert "The column other" in message and "columns hold strings, numbers, true or false, or dates" in message


def test_the_index_of_pandas_is_no_column(tmp_path):
    table = pd.DataFrame(ROWS, index=[5, 6, 7])
    table.to_parquet(tmp_path / "mine.parquet")
    assert not any(str(c).startswith("__") for c in preferences.load_pairs(str(tmp_path / "mine.parquet")).pairs)


def test_parquet_is_bounded_and_checked(tmp_path, monkeypatch):
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table({f"c{number}": [1] for number in range(1500)}), path)
    assert "has 1,500 columns, expected at most 1,000" in refused(str(path))
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["prompt", "prompt"]), path)
    assert "has the column 'prompt' twice" in refused(str(path))
    pq.write_table(pa.table({**ROWS, "prompt": pa.array([b"\xff", b"a", b"b"]).view(pa.string())}), path)
    assert "is no .parquet table" in refused(str(path))
    monkeypatch.setattr("probing.preferences.tables.parquet_file.MOST_RECORDS", 2)
    assert "has 3 records, expected at most 2" in refused(parquet(tmp_path))


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (["1", "2", "3"], [1, 2, 3]),
        ([" 0.5 ", "1e-3", "-2."], [0.5, 0.001, -2.0]),
        (["0.1", "", "NA"], [0.1, None, None]),
        (["0.1234567890123456789", "1", "2"], [0.1234567890123456789, 1.0, 2.0]),
        (["true", "False", "TRUE"], [True, False, True]),
        (["true", "", "false"], [True, None, False]),
        (["007", "7", "07"], ["007", "7", "07"]),
        (["12345678901234567890", "1", "2"], ["12345678901234567890", "1", "2"]),
        (["1_0", "0x1", "١"], ["1_0", "0x1", "١"]),
        (["a", "", "NA"], ["a", None, "NA"]),
        (["", "", ""], [None, None, None]),
    ],
)
def test_extra_csv_columns_are_numbers_only_if_all_are(cells, read):
    found = infer_type(cells)
    assert [None if pd.isna(value) else value for value in found] == read


@pytest.mark.parametrize("margin", ["inf", "-Infinity", "1e999", "big", "1_0", "٣", "true"])
def test_margins_are_finite_numbers(tmp_path, margin):
    assert f"Record 'pair1' has the margin '{margin}', which is no number" in refused(
        csv(tmp_path, "margin", " 0.5 ", margin, "")
    )
    with pytest.raises(UserError, match="which is no number; give a finite number"):
        preferences.load_pairs(parquet(tmp_path, margin=[0.5, float("inf"), None]))


def test_margins_are_read_from_every_format(tmp_path):
    for path in (
        csv(tmp_path, "margin", " 0.5 ", "nan", ""),
        parquet(tmp_path, margin=[0.5, float("nan"), None]),
        parquet(tmp_path, margin=[" 0.5", "nan", None]),
        jsonl(tmp_path, {"margin": 0.5}, {"margin": "null"}, {"margin": None}),
        jsonl(tmp_path, {"margin": "0.5"}, {"margin": float("nan")}),
    ):
        margins = preferences.load_pairs(path).pairs["margin"]
        assert margins[0] == 0.5 and margins[1:].isna().all()


def test_extra_numbers_are_finite(tmp_path):
    assert "Record 'pair2' has the confidence inf" in refused(csv(tmp_path, "confidence", "0.5", "0.9", "inf"))
    assert "Record 'pair1' has the confidence -inf" in refused(parquet(tmp_path, confidence=[1.0, -np.inf, None]))


@pytest.mark.parametrize("tie", [[1], {"a": 1}])
def test_ties_are_true_or_false(tmp_path, tie):
    assert "expected true or false, not" in refused(jsonl(tmp_path, {"tie": tie}))
    assert "has the tie '0.5'; write true or false" in refused(jsonl(tmp_path, {"tie": 0.5}))
    assert "expected true or false" in refused(parquet(tmp_path, tie=[[1], [0], []]))
    assert preferences.load_pairs(parquet(tmp_path, tie=[1.0, None, 0.0])).pairs["choice"].tolist()[0] == 0.5


def test_lists_are_named_in_a_whole_split_or_not_at_all(tmp_path):
    assert "Record 1 of mine has no list_id, and others" in refused(
        csv(tmp_path, "list_id,split", "a,train", ",train", ",test")
    )
    assert (
        preferences.load_pairs(csv(tmp_path, "list_id,split", "a,train", "b,train", ",test")).pairs["list_id"][0] == "a"
    )


@pytest.mark.parametrize("suffix", [".tsv", ".txt", ".xlsx", ".csv.gz", ".json"])
def test_other_suffixes_are_one_sentence(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    path.write_text("prompt\tchosen\trejected\n")
    message = refused(str(path))
    assert message.endswith("is neither a data set's name nor a table; a file of pairs ends in .csv, .parquet, .jsonl.")
    with pytest.raises(UserError, match="A file of rewards ends in .csv, .parquet, .jsonl, got"):
        read_rewards(path)
    (tmp_path / "CAPITALS.CSV").write_text("prompt,chosen,rejected\na,b,c\nd,e,f\n")
    assert len(preferences.load_pairs(str(tmp_path / "CAPITALS.CSV")).pairs) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("item_id,reward\nx,1\ny,nan\n", "Record 'y' has the reward 'nan', which is no number; give a finite number"),
        ("item_id,reward\nx,1\ny,NA\n", "Record 'y' has the reward 'NA'"),
        ("item_id,reward\nx,1\ny,inf\n", "Record 'y' has the reward 'inf'"),
        ("item_id,reward\nx,1\ny,high\n", "Record 'y' has the reward 'high'"),
        ("prompt,image,reward\na,b,1\na, c,d,1\n", "Line 3 of .* has 4 fields, and the header has 3 columns"),
        ("prompt,image,reward\na,b,one\n", "Record '0' has the reward 'one'"),
        ('prompt,image,reward\n"a,b,1\n"b,c,2\n', "Line 2 of .* opens a quote"),
    ],
)
def test_bad_rewards_are_one_sentence(tmp_path, content, message):
    path = tmp_path / "rewards.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_rewards(path)


def test_rewards_are_read_alike_from_every_format(tmp_path):
    rows = [{"item_id": "007", "reward": 0.5}, {"item_id": "NA", "reward": None}]
    (tmp_path / "a.csv").write_text("item_id,reward\n007, 0.5 \nNA,\n")
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for suffix in ("csv", "parquet", "jsonl"):
        table = read_rewards(tmp_path / f"a.{suffix}")
        assert table["item_id"].tolist() == ["007", "NA"]
        assert table["reward"][0] == 0.5 and np.isnan(table["reward"][1])
    pq.write_table(pa.table({"item_id": ["x", "y"], "reward": [1.0, float("nan")]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="Record 'y' has the reward 'nan'"):
        read_rewards(tmp_path / "a.parquet")
    pq.write_table(pa.table({"item_id": ["x"], "reward": [[1.0]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="The column reward of .* is of type list<.*; expected numbers"):
        read_rewards(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"item_id": "x", "reward": true}')
    with pytest.raises(UserError, match="Record 0 of .* has the reward True, expected a number, not bool"):
        read_rewards(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("name", "column", "values", "message"),
    [
        ("pickapic-v1", "caption", "chat", "The column caption of .*; prompts are strings"),
        ("pickapic-v1", "jpg_0", "text", "The column jpg_0 of .* is of type .*string; expected the bytes of a picture"),
        ("pickapic-v1", "image_0_uid", "chat", "The column image_0_uid of .*; ids are strings or whole numbers"),
        ("pickapic-v1", "label_0", "chat", "The column label_0 of .*; expected numbers"),
        ("pickapic-v1", "model_1", "chat", "The column model_1 of .*; splits, facets and models are strings"),
        ("genai-bench", "prompt", "chat", "The column prompt of .*; prompts are strings"),
        ("genai-bench", "left_image", "text", "The column left_image of .*; expected the bytes of a picture"),
        ("imagereward-db", "prompt", "chat", "The column prompt of .*; prompts are strings"),
        ("imagereward-db", "rank", "chat", "The column rank of .*; expected numbers"),
    ],
)
def test_benchmarks_of_parquet_check_types(tmp_path, name, column, values, message):
    root = write_published(name, tmp_path / name)
    pattern = {"imagereward-db": "metadata-test.parquet"}.get(name, "*test*.parquet")
    path = sorted(root.rglob(pattern))[0]
    table = pq.read_table(path)
    made = pa.array([CHAT[0]] * len(table)) if values == "chat" else pa.array(["text"] * len(table))
    pq.write_table(table.set_column(table.column_names.index(column), column, made), path)
    with pytest.raises(UserError, match=message) as error:
        preferences.load_pairs(name, root=root, split="test")
    assert str(error.value).isprintable()


def test_one_prompt_id_of_imagereward_has_one_prompt(tmp_path):
    root = write_published("imagereward-db", tmp_path / "db")
    path = root / "metadata-test.parquet"
    rows = pd.read_parquet(path)
    rows.loc[1, "prompt"] = "another"
    rows.to_parquet(path)
    with pytest.raises(UserError, match="The prompt_id '002000-0005' of .* has two prompts, .* and 'another'"):
        preferences.load_pairs("imagereward-db", root=root, split="test")


@pytest.mark.parametrize("value", [["a"], {"a": 1}, 3, b"a", 1.5, True])
def test_comparisons_made_in_python_are_checked_too(value):
    table = pd.DataFrame(
        {"prompt": ["a", value], "first": ["x", "x"], "second": ["y", "y"], "choice": 1.0}, dtype=object
    )
    with pytest.raises(UserError, match=r"Record 1 of mine has the prompt .* of type .*; prompts are strings"):
        from_comparisons("mine", table, None, randomize_sides=False)


def test_messages_are_one_printable_line():
    message = str(UserError(f"a\nb\x1b[31m\u202e {'x' * 1000} and the fix."))
    assert message.isprintable() and message.startswith("a b\\x1b[31m\\u202e") and message.endswith("and the fix.")
    assert len(message) <= LONGEST_MESSAGE + 20
    assert shown("x" * 100) == "'" + "x" * 78 + "…" and shown(np.float64(0.5)) == "0.5"
    assert listed(["a", "b"]) == "a, b" and listed(f"column {n}" for n in range(100)).endswith("more")


def test_numbers_name_their_record():
    column = pd.Series([1, "x"], name="margin", dtype=object)
    with pytest.raises(UserError, match="Record 'b' has the margin 'x', which is no number; give a finite number"):
        numbers(column, pd.Series(["a", "b"]))
