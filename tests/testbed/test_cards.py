"""The cards of the shipped weights are rendered from their measurements."""

from __future__ import annotations

import json

import pytest

from probing.testbed.recipes import card, generated, judge_card
from probing.testbed.recipes.assemble import WEIGHTS
from probing.testbed.recipes.cards import render_card, write_card
from probing.testbed.sizes import SIZES

RENDERERS = {
    **dict.fromkeys(SIZES, card.render_readme),
    "judge": judge_card.render_readme,
    "rival": lambda content: render_card("rival_card", content),
    "generated": generated.render_readme,
}


@pytest.mark.parametrize("name", RENDERERS)
def test_shipped_readme_is_rendered_from_its_card(name):
    content = json.loads((WEIGHTS / name / "card.json").read_text())
    assert RENDERERS[name](content) == (WEIGHTS / name / "README.md").read_text()


def test_card_and_readme_are_written_together(tmp_path):
    row = {"facet": "all", "attribute": "size", "accuracy": 0.8, "ci_low": 0.7, "ci_high": 0.9, "ceiling": 0.95}
    rows = [{**row, "n_pairs": 1234}]
    content = {"parameters": 10, "bytes": 2e6, "accuracy": rows, "by_attribute": rows, "schedules": {"steps": 1}}
    text = write_card(tmp_path, "rival_card", content).read_text()
    assert json.loads((tmp_path / "card.json").read_text()) == content
    assert "| all | 80.0 [70.0, 90.0] | 95.0 | 1,234 |" in text and "(2.0 MB, float16)" in text
    assert "After the first stage alone" not in text
    assert "After the first stage alone" in render_card("rival_card", {**content, "agreement": rows})
