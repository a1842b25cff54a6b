"""README says what was measured, and names commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from probing import extract, figures, fit
from probing.backbones import model_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_findings_are_those_of_the_table():
    table = pd.read_csv(ROOT / "figures" / "comparisons.csv")
    for statement in table.loc[table["scope"] == "overall", "statement"]:
        assert statement in re.sub(r"\s+", " ", README)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link


@pytest.mark.parametrize("command", [extract, fit, figures])
def test_options_exist(command):
    known = {option for action in command.build_parser()._actions for option in action.option_strings}
    name = command.__name__
    for line in re.sub(r"\\\n\s*", "", README).splitlines():
        if line.startswith(f"python -m {name} "):
            assert set(re.findall(r"(?<!\S)--[a-z0-9-]+", line)) <= known, line


def test_models_exist():
    assert set(re.findall(r"`(sd3[a-z0-9-]*|testbed-[a-z]+)`", README)) <= set(model_names())
