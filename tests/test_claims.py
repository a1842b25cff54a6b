"""Every interval of README, docs, notebooks and cards is in a committed table; a wrong one is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probing.claims import find_claims, main

ROOT = Path(__file__).parents[1]
TABLES = [f"--tables={ROOT / folder}" for folder in ("figures", "benchmarks", "probing/testbed/weights")]
# The first notebook is about an example of its own, whose tables are not committed.
CARDS = sorted((ROOT / "probing" / "testbed" / "weights").glob("*/README.md"))
TEXTS = [ROOT / "README.md", ROOT / "docs", *CARDS, *sorted((ROOT / "notebooks").glob("0[1-9]*.ipynb"))]


def test_every_committed_interval_is_in_a_table(capsys):
    assert main([*map(str, TEXTS), *TABLES]) == 0, capsys.readouterr().out


@pytest.fixture
def tables(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "controls.csv").write_text(
        "facet,value,ci_low,ci_high,difference,difference_low,difference_high\n"
        "quality,0.72961,0.70312,0.75704,-0.105,-0.1401,-0.0712\n"
    )
    (folder / "card.json").write_text(json.dumps({"judged": [{"accuracy": 0.5, "ci_low": 0.25, "ci_high": 0.875}]}))
    return folder


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Quality reaches 73.0% [70.3, 75.7] at block 6.", True),
        ("Quality reaches 73.1% [70.3, 75.7] at block 6.", False),
        ("Quality reaches 73.0% [70.3, 75.8] at block 6.", False),
        ("It is 10.5 points [7.1, 14.0] worse.", True),
        ("It is -10.5 points [-14.0, -7.1].", True),
        ("It is 10.5 points [7.1, 14.1] worse.", False),
        ("As a share, 0.730 [0.703, 0.757].", True),
        ("An interval alone [70.3, 75.7].", True),
        ("The judge finds 50% [25, 88] of them.", True),
        ("| trained | 73.0 [70.3, 75.7] | 73.0 [70.3, 75.7] |", True),
        ("No interval: 99% of nothing, and a list [1].", True),
        ("```python\nx = 99.9  # [98.0, 99.9]\n```", True),
    ],
)
def test_a_claim_must_be_a_rounded_row(tmp_path, tables, text, right, capsys):
    (tmp_path / "text.md").write_text(text)
    assert main([str(tmp_path / "text.md"), "--tables", str(tables)]) == (0 if right else 1)
    assert ("no table has this" in capsys.readouterr().out) != right


def test_notebooks_are_read_by_their_prose(tmp_path, tables, capsys):
    cells = [
        {"cell_type": "markdown", "source": ["It is 73.0%\n", "[70.3, 75.7].\n"]},
        {"cell_type": "code", "source": ["print('99% [98, 99]')"], "outputs": ["1.0 [0.9, 1.1]"]},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    assert [claim.estimate for claim in find_claims(tmp_path / "n.ipynb")] == ["73.0"]
    assert main([str(tmp_path / "n.ipynb"), "--tables", str(tables)]) == 0
    assert "1 of 1 intervals" in capsys.readouterr().out


def test_mistakes_end_in_status_2(tmp_path, capsys):
    assert main([str(tmp_path / "none.md")]) == 2
    assert main([str(tmp_path)]) == 2
    assert "give a Markdown file" in capsys.readouterr().err
