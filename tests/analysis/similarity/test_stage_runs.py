"""Stages as settings, and the rows of a table that apply to a curve."""

from __future__ import annotations

import pandas as pd
import pytest

from probing.analysis.similarity.nearest import nearest_rows
from probing.analysis.similarity.stage_runs import parse_stages, stage_runs
from probing.errors import UserError


def test_without_a_table_stages_are_equal_parts():
    runs = stage_runs(range(8))
    assert runs.source == "equal" and runs.names == ("B1", "B2", "B3", "B4")
    assert runs.blocks == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert [len(run) for run in stage_runs(range(7)).blocks] == [3, 2, 2]
    assert stage_runs([0, 1]).blocks == ((0,), (1,))
    assert runs.of(5) == "B3"


def test_one_stage_is_divided_on_request():
    one = pd.DataFrame({"stage": ["B1"], "first_block": [0], "last_block": [7]})
    assert stage_runs(range(8), one).blocks == (tuple(range(8)),)
    divided = stage_runs(range(8), one, divide_one=True)
    assert divided.blocks == ((0, 1), (2, 3), (4, 5), (6, 7)) and divided.source == "equal, given finds one"
    with pytest.raises(UserError, match="Blocks 4, 5, 6, 7 are in no stage"):
        stage_runs(range(8), one.assign(last_block=3), divide_one=True)


def test_stages_are_read_from_text():
    runs = stage_runs(range(7), parse_stages("0-2, 3, 4-7"))
    assert runs.source == "given" and runs.blocks == ((0, 1, 2), (3,), (4, 5, 6))
    # A stream that ends earlier lacks the stages beyond its end.
    assert stage_runs(range(4), parse_stages("0-2,3,4-7")).names == ("B1", "B2")
    for wrong in ("", "0-", "3-1", "a-b", "0-2;3-5"):
        with pytest.raises(UserError, match="written like 0-2,3-5,6-7"):
            parse_stages(wrong)


def test_overlaps_and_gaps_are_refused():
    for wrong in ("0-3,3-5", "0-1,3-5"):
        with pytest.raises(UserError, match="are in no stage or in two"):
            stage_runs(range(6), parse_stages(wrong))


def table_of(**columns):
    rows = []
    for model in ("a", "b"):
        for stream, part in (("image", "all"), ("text", "clip"), ("text", "t5")):
            for sigma in (0.1, 0.6):
                for source in ("trajectory", "images"):
                    for measure in ("cosine", "cka"):
                        for chosen in (True, False):
                            rows.append(
                                {
                                    "model": model,
                                    "stream": stream,
                                    "part": part,
                                    "sigma": sigma,
                                    "source": source,
                                    "measure": measure,
                                    "chosen": chosen,
                                    "step": pd.NA if source == "images" else 3,
                                    "control": "trained",
                                }
                            )
    return pd.DataFrame(rows).astype({"step": "Int64"}).assign(**columns)


def test_the_rows_of_one_site_are_selected():
    rows = nearest_rows(table_of(), model="b", stream="text", reduction="mean_t5", sigma=0.5)
    (row,) = rows.to_dict("records")
    selected = {key: row[key] for key in ("model", "stream", "part", "sigma", "source", "measure", "chosen")}
    assert selected == {
        "model": "b",
        "stream": "text",
        "part": "t5",
        "sigma": 0.6,
        "source": "images",
        "measure": "cosine",
        "chosen": True,
    }


def test_another_stream_is_selected_only_on_request():
    table = table_of()
    assert nearest_rows(table, model="c", stream="image").empty
    image = table[table["stream"] == "image"]
    assert nearest_rows(image, model="a", stream="text").empty
    assert set(nearest_rows(image, model="a", stream="text", any_stream=True)["stream"]) == {"image"}
    assert nearest_rows(table.assign(control="random-init"), model="a", stream="image").empty


def test_stages_of_the_nearest_noise_level_are_used():
    stages = pd.DataFrame(
        {
            "model": "a",
            "measure": "cka",
            "sigma": [0.1, 0.1, 0.9, 0.9],
            "stage": ["B1", "B2"] * 2,
            "first_block": [0, 2, 0, 3],
            "last_block": [1, 3, 2, 3],
        }
    )
    assert stage_runs(range(4), stages, model="a", sigma=0.7).blocks == ((0, 1, 2), (3,))
    assert stage_runs(range(4), stages, model="a", sigma=0.3).source == "cka"
    assert stage_runs(range(4), stages, model="b", sigma=0.3).source == "equal"
