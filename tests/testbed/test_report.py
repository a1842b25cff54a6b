"""The page of the testbed: one self-contained file, with or without each card."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from probing.testbed import report, report_figures
from probing.testbed.judge import EACH, WHOLE
from probing.testbed.page import Page
from probing.testbed.scenes import ATTRIBUTES
from tests.fakes.blank_figures import savefig

SIGMAS = (0.1, 0.9, None)


def card(size: str, parameters: int, steps: int = 100) -> dict:
    def judged(accuracy: float) -> list[dict]:
        return [
            {"attribute": a, "accuracy": accuracy, "ci_low": accuracy - 0.1, "ci_high": accuracy + 0.1, "n": 50}
            for a in (*ATTRIBUTES, EACH, WHOLE)
        ]

    return {
        "size": size,
        "parameters": parameters,
        "steps": steps,
        "held_out_loss": [{"sigma": s, "loss": 0.3, "half_width": 0.01} for s in SIGMAS],
        "discriminated": judged(0.7),
        "judged": judged(0.8),
        "chance": judged(0.2),
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of two sizes, a further seed, two checkpoints and the baseline; no judge, no generated images."""
    folder = tmp_path_factory.mktemp("weights")
    accuracy = {
        "split": "test",
        "facet": "alignment",
        "accuracy": 0.8,
        "ci_low": 0.7,
        "ci_high": 0.9,
        "ceiling": 0.92,
        "n_pairs": 10,
    }
    rival = {"parameters": 1000, "accuracy": [accuracy], "by_attribute": [{**accuracy, "attribute": "colour"}]}
    cards = {
        "xs": card("xs", 10**6),
        "m": card("m", 10**7),
        "rival": rival,
        "trainings/xs-seed1": card("xs", 10**6),
        "trainings/xs-step1": card("xs", 10**6, 1),
        "trainings/xs-step10": card("xs", 10**6, 10),
    }
    for name, content in cards.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "card.json").write_text(json.dumps(content))
    Image.new("RGB", (8, 8)).save(folder / "xs" / "samples.png")
    output = tmp_path_factory.mktemp("out") / "new" / "page.html"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", savefig)
        assert report.main(["--output", str(output), "--weights", str(folder)]) == 0
    return output.read_text()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_self_contained_and_lists_what_is_missing(page):
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in tags.sources)
    assert (
        "Without a card: s, s-seed1, l;" in page
        and "xs-seed1 differs from xs by 0.0000" in page
        and "The judge is missing" in page
    )
    for expected in (
        "testbed-xs-seed1",
        "10,000,000",
        "80.0 [70.0, 90.0]",
        "70.0 [60.0, 80.0]",
        "0.3000 ± 0.0100",
        "true reward",
    ):
        assert expected in page, expected
    # Four figures, one sheet of samples, 6 pairs of each of 4 facets, 3 marked pairs.
    for expected in (
        "Flow-matching loss on held-out scenes",
        "Discrimination",
        "How often a generated image",
        "along one training",
    ):
        assert expected in page, expected
    assert len([source for source in tags.sources if source.startswith("data:")]) == 4 + 1 + 2 * 6 * 4 + 2 * 3


def test_page_shows_the_checks_of_the_data(page):
    rows = {}
    for row in re.findall(r"<tr>(.*?)</tr>", page.split("Planted shortcut</h2>")[1].split("<h2")[0], re.S):
        cells = re.findall(r"<td>(.*?)</td>", row, re.S)
        if cells:
            rows[tuple(cells[:3])] = float(cells[3].split(" ")[0])
    accuracy = {(name.replace("&#x27;", "'"), *rest): value for (name, *rest), value in rows.items()}
    assert accuracy[("corner's pixels", "train", "on either")] > 82
    assert 43 < accuracy[("corner's pixels", "test", "on either")] < 57
    assert abs(accuracy[("true reward", "test", "on either")] - 92.4) < 0.5


def test_page_escapes_text(tmp_path):
    page = Page("<script>", "a <lead>")
    page.section("A & B")
    page.paragraph("1 < 2")
    page.table(pd.DataFrame({"<x>": ["&"]}))
    page.figure(Figure(), "a <figure>")
    page.image_groups([([Image.new("RGB", (4, 4))], "<one>")])
    page.write(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script>" not in text
    for expected in ("A &amp; B", "1 &lt; 2", "&lt;x&gt;", "a &lt;figure&gt;", "&lt;one&gt;", "a &lt;lead&gt;"):
        assert expected in text


def test_every_attribute_is_plotted_over_training():
    cards, along = {"xs": card("xs", 10**6)}, {"xs-step1": card("xs", 10**6, 1)}
    (ax,) = report_figures.along_training(cards, along).axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [*ATTRIBUTES, EACH, WHOLE]


def test_dash_marks_chance():
    cards = {"xs": card("xs", 10**6), "m": card("m", 10**7)}
    figure = report_figures.discrimination_by_size(cards, {})
    dashes = {
        ax.get_title(): [float(line.get_ydata()[0]) for line in ax.lines if line.get_color() == "0.5"]
        for ax in figure.axes
        if ax.axison
    }
    assert dashes == {**{name: [0.5, 0.5] for name in (*ATTRIBUTES, EACH)}, WHOLE: []}
    judged = report_figures.judged_by_size(cards, {})
    assert [float(line.get_ydata()[0]) for line in judged.axes[0].lines if line.get_color() == "0.5"] == [0.2, 0.2]
