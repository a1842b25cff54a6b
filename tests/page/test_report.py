"""``python -m probing.report``: what its page holds, what it never does, and how it fails."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser

import pandas as pd
import pytest
from matplotlib.figure import Figure

from probing.figures import FIGURES
from probing.figures import main as draw
from probing.page import SECTIONS, build_page, collect
from probing.page.drawing import draw_picture
from probing.page.sources import Drawn
from probing.plots import NothingToDraw, figure_comparisons
from probing.report import main
from tests.plots.figure_tables import comparison_table, curve_table

VOID = {"meta", "link", "img", "br", "col", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, and the text of the whole; tags must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.elements, self.words, self._open = text, [], [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def said(self):
        return " ".join(" ".join(self.words).split())


def small_curve():
    """One stream: a small figure is as good, and drawn sooner."""
    curve = curve_table()
    return curve[curve["stream"] != "text"]


def stated(table):
    return table.assign(
        statement=[
            f"{row.facet}: better than {row.baseline} by {row.scope} of {row.stream}." for row in table.itertuples()
        ]
    )


def write_results(folder, **changed):
    folder.mkdir(parents=True)
    tables = {"reward_curve": small_curve(), "comparisons": stated(comparison_table())} | changed
    for name, table in tables.items():
        if table is not None:
            table.to_parquet(folder / f"{name}.parquet", index=False)
    return folder


def report(results, output, *options):
    assert main(["--results", str(results), "--output", str(output), *options]) == 0
    return Page(output.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("page") / "results")


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    return report(results, tmp_path_factory.mktemp("out") / "report.html")


def test_every_figure_is_inside_and_described(page):
    pictures = page.all("img")
    assert len(pictures) == 2
    for picture in pictures:
        kind, _, content = picture["src"].partition(";base64,")
        assert kind in ("data:image/svg+xml", "data:image/png")
        assert base64.b64decode(content, validate=True)[:5] in (b"<?xml", b"\x89PNG\r")
        assert picture["alt"].endswith("The numbers are in the table below.") and picture["width"].isdigit()
    assert "Panels: alignment, image tokens (mean), 1,234 pairs of 617 prompts" in pictures[0]["alt"].replace("\n", " ")


def test_nothing_is_fetched_from_anywhere(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name][:80])
    assert not {"iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}
    assert "http:" not in page.text and "https:" not in page.text and "@import" not in page.text
    assert "url(" not in page.text
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert (
        policy.startswith("default-src 'none'; img-src data:;") and "unsafe-inline" not in policy.split("script-src")[1]
    )


def test_links_within_the_page_lead_somewhere(page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for link in page.all("a"):
        assert link["href"].startswith("data:") or link["href"][1:] in names


def test_captions_rows_provenance_and_questions_are_text(page):
    for said in (
        "Bands: 95% percentile cluster bootstrap over prompts.",
        "both chosen by cross-validation on training pairs",
        f"{len(small_curve())} rows of reward_curve.parquet",
        SECTIONS["comparisons"].question,
        "python -m probing.figures --results results draws it again",
        "python -m probing.report --results results",
        "SHA-256 of its CSV",
        "1,234",
    ):
        assert said in page.said


def test_the_whole_table_can_be_taken_out(page):
    links = {link["download"]: link["href"] for link in page.all("a") if "download" in link}
    assert set(links) == {"reward_curve.csv", "comparisons.csv"}
    content = base64.b64decode(links["reward_curve.csv"].partition(";base64,")[2])
    assert content == small_curve().to_csv(index=False, lineterminator="\n").encode()


def test_long_and_wide_tables_are_cut_and_large_ones_left_where_they_are(tmp_path):
    long = pd.DataFrame({f"c{i}": range(12_000) for i in range(60)})
    page = report(write_results(tmp_path / "results", outcomes=long), tmp_path / "report.html")
    assert len(page.text) < 2_000_000
    assert (
        "Table: 12,000 rows, 60 columns" in page.said and "The first 100 of 12,000 rows. 20 more columns" in page.said
    )
    assert "it is outcomes.parquet in the folder of results" in page.said


def test_what_is_the_same_in_every_row_is_said_once(tmp_path):
    table = pd.DataFrame({"a": [1.23456, 2.0], "model": ["only", "only"], "none": [None, None], "list": [[1], [1]]})
    page = report(write_results(tmp_path / "results", extra=table), tmp_path / "report.html")
    assert "The same in every row: model only; none (empty); list [1]." in page.said
    assert '<td class="n">1.235</td>' in page.text


def test_statements_of_the_whole_are_at_the_top(page):
    top = page.said.split(SECTIONS["reward_curve"].question)[0]
    assert "alignment: better than latents by overall of text." in top and "by stream of" not in top
    assert page.said.count("quality: better than random-init by stream of image.") >= 2  # in words, and in the table


def test_other_statements_say_of_what_and_of_which_model(tmp_path):
    table = pd.DataFrame(
        {
            "model": ["s", "m"],
            "facet": "quality",
            "sigma": [0.6, None],
            "stream": "text",
            "statement": ["grows.", "grows."],
        }
    )
    page = report(write_results(tmp_path / "results", linearity=table), tmp_path / "report.html")
    assert "s, quality, text, σ = 0.6: grows." in page.said and "m, quality, text: grows." in page.said


def test_the_best_cell_is_chosen_on_training_pairs(tmp_path):
    curve = small_curve().assign(cv_accuracy=0.5, probe="logistic")
    here = (curve["block"] == 1) & (curve["control"] == "trained") & (curve["sigma"] == 0.6)
    curve.loc[here, "cv_accuracy"] = 0.9
    keys = ["model", "facet", "probe", "stream", "reduction", "sigma", "block", "control"]
    measures = curve.loc[curve["control"] == "trained", keys].assign(metric="may_be_best", value=1.0)
    page = report(write_results(tmp_path / "results", reward_curve=curve, measures=measures), tmp_path / "report.html")
    cells = page.said.split("Best cell of each facet")[1].split("Chosen by cross-validation")[0]
    assert "quality 64.0% [61.0, 67.0] image mean 0.6 1 90.0% 0, 1, 2, 3 1,234 617" in cells


def test_a_figure_without_its_table_is_left_out(tmp_path):
    page = report(write_results(tmp_path / "results", comparisons=None), tmp_path / "report.html")
    assert len(page.all("img")) == 1 and "comparisons" not in {a.get("id") for a in page.all("section")}


def nothing_to_draw(table):
    raise NothingToDraw("no draws were measured.")


def test_a_figure_with_nothing_to_show_is_named_and_one_that_is_given_more_shows_it(results):
    figures = {"curve": ("reward_curve", nothing_to_draw), "differences": ("comparisons", figure_comparisons)}
    sources = collect(figures, results, join=lambda table, name: table[table["facet"] == "quality"])
    page = Page(build_page(sources, command="c", redraw="r"))
    assert "Curve is not drawn: no draws were measured." in page.said and len(page.all("img")) == 1
    assert "alignment" not in page.all("img")[0]["alt"] and "Table: 12 rows" in page.said


def test_a_caption_under_all_axes_becomes_text_too(tmp_path):
    figure = Figure()
    figure.subplots().set_xlabel("block")
    figure.supxlabel("Dots: pairs, cross-\nvalidated.")
    picture = draw_picture("dots", Drawn(lambda table: figure, pd.DataFrame(), None))
    assert picture.caption == "Dots: pairs, cross-validated." and figure.get_supxlabel() == ""
    assert picture.alt == "Dots. Horizontal: block. The numbers are in the table below."


def test_tables_beside_figures_do_too_and_their_provenance_is_compared(results, tmp_path):
    drawn = tmp_path / "drawn"
    assert draw(["--results", str(results), "--output", str(drawn)]) == 0
    record = json.loads((drawn / "comparisons.json").read_text())
    (drawn / "comparisons.json").write_text(json.dumps(record | {"table_sha256": "0"}))
    page = report(drawn, tmp_path / "report.html")
    assert len(page.all("img")) == 2 and "rows of reward_curves.csv" in page.said
    page = report(results, tmp_path / "report.html", "--figures", str(drawn))
    assert "drawn before by python -m probing.figures --results results --output drawn with" in page.said
    assert "from the same rows" in page.said and "from other rows than these" in page.said


def test_what_tables_say_is_text_and_nothing_else(tmp_path):
    evil = "<script>alert(1)</script>\"'&"
    curve = small_curve().assign(model=evil, store=evil, cv_accuracy=0.5)
    comparisons = stated(comparison_table()).assign(statement=evil)
    changed = {"reward_curve": curve, "comparisons": comparisons, "x\" onload='y": pd.DataFrame({evil: [evil, "b"]})}
    page = report(write_results(tmp_path / "results", **changed), tmp_path / "report.html")
    assert len(page.all("script")) == 1 and "<script>alert" not in page.text
    assert evil in page.said and any(evil in picture["alt"] for picture in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_the_same_tables_give_the_same_bytes(results, tmp_path):
    for name in ("a", "b"):
        report(results, tmp_path / name / "report.html")
    assert (tmp_path / "a/report.html").read_bytes() == (tmp_path / "b/report.html").read_bytes()
    text = (tmp_path / "a/report.html").read_text()
    assert str(tmp_path) not in text and str(results.parent) not in text


def test_every_experiment_with_a_figure_has_its_entry():
    assert {table for table, _ in FIGURES.values()} <= set(SECTIONS)


def test_mistakes_end_in_status_2_one_sentence_and_no_page(results, tmp_path, capsys):
    empty, broken, strange = tmp_path / "empty", tmp_path / "broken", tmp_path / "strange"
    empty.mkdir()
    (write_results(broken) / "comparisons.parquet").write_bytes(b"PAR1 no more")
    write_results(strange, comparisons=pd.DataFrame({"facet": ["quality"]}))
    for options, message in (
        (["--results", str(tmp_path / "none")], "There is no folder"),
        (["--results", str(empty)], "has none of reward_curve.parquet, comparisons.parquet"),
        (["--results", str(broken)], "comparisons.parquet cannot be read as a table"),
        (["--results", str(strange)], "The figure comparisons cannot be drawn from its table (KeyError:"),
        (["--results", str(results), "--figures", str(tmp_path / "none")], "There is no folder"),
    ):
        assert main([*options, "--output", str(tmp_path / "new" / "report.html")]) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and error.strip().count("\n") == 0
    assert not (tmp_path / "new").exists()
    assert main(["--results", str(results), "--output", str(empty)]) == 2
    assert "is a folder; give --output a file" in capsys.readouterr().err
    assert list(empty.iterdir()) == []


def test_a_page_that_stood_there_stays_if_the_new_one_is_not_whole(results, tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("probing.files.os.fsync", full)
    assert main(["--results", str(results), "--output", str(tmp_path / "report.html")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "old"
