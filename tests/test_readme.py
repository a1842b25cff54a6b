"""README says what was measured, and names commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from probing import audit, extract, figures, fit, report, score
from probing.backbones import model_names
from probing.preferences import BENCHMARKS
from probing.preferences.registry import NAMES
from probing.statistics import RULES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_findings_are_those_of_the_table():
    table = pd.read_csv(ROOT / "figures" / "comparisons.csv")
    for statement in table.loc[table["scope"] == "overall", "statement"]:
        assert statement in re.sub(r"\s+", " ", README)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link


@pytest.mark.parametrize("command", [audit, extract, fit, figures, report, score])
def test_options_exist(command):
    known = {option for action in command.build_parser()._actions for option in action.option_strings}
    name = command.__name__
    for line in re.sub(r"\\\n\s*", "", README).splitlines():
        if line.startswith(f"python -m {name} "):
            assert set(re.findall(r"(?<!\S)--[a-z0-9-]+", line)) <= known, line


def test_models_exist():
    assert set(re.findall(r"`(sd3[a-z0-9-]*|testbed-[a-z]+)`", README)) <= {*model_names(), *NAMES}


def test_the_table_of_benchmarks_is_that_of_the_code():
    header = "| benchmark | `--data` | where to get it | splits | its authors score by | they report |"
    rows = README.split(header)[1].split("\n\n")[0].splitlines()[2:]
    said = [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows]
    expected = {
        (
            benchmark.title,
            f"`{name}`",
            f"hub: `{benchmark.hub}`" if benchmark.hub else benchmark.found,
            ", ".join(benchmark.files),
            f"`{benchmark.rule}`",
            benchmark.reported,
        )
        for name, benchmark in BENCHMARKS.items()
    }
    assert set(said) == expected and len(said) == len(BENCHMARKS)


def test_the_rules_of_the_docs_are_those_of_the_code():
    table = (ROOT / "docs" / "preference_data.md").read_text().split("| rule | |")[1].split("\n\n")[0]
    named = [rule for row in table.splitlines()[2:] for rule in re.findall(r"`([a-z-]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(RULES)
