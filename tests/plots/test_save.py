"""Saved figures: four files, the same bytes each time; and the command that draws them all."""

from __future__ import annotations

import hashlib
import json
import shutil
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from probing.api.figures import draw_figures
from probing.experiments import FIGURES, STUDIES, resolve
from probing.figures import main
from probing.plots import figure_comparisons, save_figure
from tests.plots.figure_tables import comparison_table, curve_table, heat_map_tables, study_tables
from tests.plots.similarity_tables import similarity_tables, token_table
from tests.plots.sweep_tables import sweep_tables


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    curve_table().to_parquet(folder / "reward_curve.parquet")
    comparison_table().to_parquet(folder / "comparisons.parquet")
    for name, table in (
        sweep_tables() | similarity_tables() | heat_map_tables() | study_tables() | {"token_maps": token_table()}
    ).items():
        table.to_parquet(folder / f"{name}.parquet")
    return folder


def test_figure_is_saved_with_table_and_provenance(tmp_path):
    table = comparison_table()
    paths = save_figure(figure_comparisons(table), table, tmp_path / "new", "x", provenance={"command": "python -m x"})
    assert [path.name for path in paths] == ["x.png", "x.pdf", "x.csv", "x.json"]
    pd.testing.assert_frame_equal(pd.read_csv(paths[2]), table)
    lines = paths[3].read_text().splitlines()
    assert len(lines) == 1
    record = json.loads(lines[0])
    assert record["command"] == "python -m x" and record["figure"] == "x"
    assert record["table_sha256"] == hashlib.sha256(paths[2].read_bytes()).hexdigest()


def test_same_table_gives_same_bytes(tmp_path):
    table = comparison_table()
    once, again = (
        save_figure(figure_comparisons(table), table, tmp_path / folder, "x", provenance={}) for folder in "ab"
    )
    for first, second in zip(once, again, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert b"CreationDate" not in once[1].read_bytes()


@pytest.mark.parametrize("name", [figure.name for study in STUDIES for figure in study.figures])
def test_a_published_study_is_drawn_again_from_its_csv(name, tmp_path):
    figure = FIGURES[name]
    table = study_tables()[figure.table]
    _, _, csv, _ = save_figure(resolve(figure.draw)(table), table, tmp_path, name, provenance={})
    assert csv.read_bytes() == (Path(__file__).parents[2] / "figures" / f"{name}.csv").read_bytes()


def test_a_redrawn_figure_keeps_the_command_that_measured_it(tmp_path, capsys):
    published = Path(__file__).parents[2] / "figures"
    folders = [tmp_path / "published", tmp_path / "once", tmp_path / "again"]
    folders[0].mkdir()
    for suffix in ("csv", "json"):
        shutil.copy(published / f"hacking_watch.{suffix}", folders[0])
    for source, target in pairwise(folders):
        drawn = draw_figures(source, target, page=False)
        assert list(drawn.figures) == ["hacking_watch"]
        assert drawn.left_out["policy"] == "python -m probing.testbed.policy makes it"
        record = json.loads((target / "hacking_watch.json").read_text())
        assert record["command"].startswith("python -m probing.figures --results ")
        assert record["measured_by"].startswith("python -m probing.testbed.policy")


QUICK = {"comparisons"}
"""The table whose figure is drawn soonest."""


@pytest.mark.parametrize(
    "tables", [pytest.param(QUICK, id="some"), pytest.param(None, id="all", marks=pytest.mark.slow)]
)
def test_csv_alone_draws_every_figure_again(tables, results, tmp_path, capsys):
    for path in results.iterdir():
        if tables is not None and path.stem not in tables:
            path.unlink()
    figures = [name for name, figure in FIGURES.items() if tables is None or figure.table in tables]
    assert main(["--results", str(results), "--output", str(tmp_path / "figures"), "--no-page"]) == 0
    assert f"{figures[0]}.png" in capsys.readouterr().out
    for name in figures:
        record = json.loads((tmp_path / "figures" / f"{name}.json").read_text())
        assert record["command"].startswith("python -m probing.figures --results ")
    assert main(["--results", str(tmp_path / "figures"), "--output", str(tmp_path / "again"), "--no-page"]) == 0
    for name in figures:
        for suffix in ("png", "pdf", "csv"):
            first, second = (tmp_path / folder / f"{name}.{suffix}" for folder in ("figures", "again"))
            assert first.read_bytes() == second.read_bytes(), first.name


def test_missing_tables_are_one_sentence(tmp_path, capsys):
    assert main(["--results", str(tmp_path), "--output", str(tmp_path / "figures")]) == 2
    error = capsys.readouterr().err
    assert "nor a figure's CSV" in error and "run python -m probing.measure first" in error
    assert "reward_curve.parquet" in error and "Traceback" not in error and error.strip().count("\n") == 0


def test_present_tables_are_drawn(tmp_path, capsys):
    comparison_table().to_parquet(tmp_path / "comparisons.parquet")
    assert main(["--results", str(tmp_path), "--output", str(tmp_path / "figures"), "--no-page"]) == 0
    assert capsys.readouterr().out.startswith("comparisons: comparisons.png")
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"comparisons"}


@pytest.mark.usefixtures("blank_figures")
def test_marks_of_other_tables_are_saved_in_the_csv(tmp_path):
    curve = curve_table().assign(probe="logistic")
    curve.to_parquet(tmp_path / "reward_curve.parquet")
    cells = curve[curve["control"] == "trained"]
    cells.assign(metric="may_be_best", value=(cells["block"] == 2).astype(float)).to_parquet(
        tmp_path / "measures.parquet"
    )
    stages = pd.DataFrame(
        {
            "model": "fake",
            "sigma": 0.0,
            "measure": "cosine",
            "stage": ["B1", "B2"],
            "first_block": [0, 2],
            "last_block": [1, 3],
        }
    )
    stages.to_parquet(tmp_path / "stages.parquet")
    assert main(["--results", str(tmp_path), "--output", str(tmp_path / "figures"), "--no-page"]) == 0
    drawn = pd.read_csv(tmp_path / "figures" / "reward_curves.csv")
    trained = drawn[drawn["control"] == "trained"]
    assert (trained["may_be_best"] == (trained["block"] == 2)).all()
    assert (trained["stage"] == trained["block"].map({0: "B1", 1: "B1", 2: "B2", 3: "B2"})).all()


@pytest.mark.usefixtures("blank_figures")
def test_missing_table_is_named(tmp_path, capsys):
    comparison_table().to_parquet(tmp_path / "comparisons.parquet")
    assert main(["--results", str(tmp_path), "--output", str(tmp_path / "figures"), "--no-page"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Not drawn")]
    assert "token_maps" in line and "comparisons" not in line
    assert (tmp_path / "figures" / "comparisons.png").is_file() and not (
        tmp_path / "figures" / "token_maps.png"
    ).exists()
