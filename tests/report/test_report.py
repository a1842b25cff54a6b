"""The page of ``python -m probing.figures``: its content, its safety, its errors."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser

import pandas as pd
import pytest
from matplotlib.figure import Figure

from probing.api.figures import sections
from probing.experiments import FIGURES
from probing.figures import main
from probing.plots import NothingToDraw, figure_comparisons
from probing.report import build_page, collect
from probing.report.drawing import draw_picture
from probing.report.sources import FigureInput
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
    def visible_text(self):
        return " ".join(" ".join(self.words).split())


def small_curve():
    """One stream: a small figure is as good, and drawn sooner."""
    curve = curve_table()
    return curve[curve["stream"] != "text"]


def with_statements(table):
    return table.assign(
        statement=[
            f"{row.facet}: better than {row.baseline} by {row.scope} of {row.stream}." for row in table.itertuples()
        ]
    )


def write_results(folder, **changed):
    folder.mkdir(parents=True)
    tables = {"reward_curve": small_curve(), "comparisons": with_statements(comparison_table())} | changed
    for name, table in tables.items():
        if table is not None:
            table.to_parquet(folder / f"{name}.parquet", index=False)
    return folder


def write_report(results, output, *options):
    figures = output.parent / "drawn"
    assert main(["--results", str(results), "--output", str(figures), "--page", str(output), *options]) == 0
    return Page(output.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("page") / "results")


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    return write_report(results, tmp_path_factory.mktemp("out") / "report.html")


def test_every_figure_is_embedded_with_a_description(page):
    pictures = page.all("img")
    assert len(pictures) == 3
    for picture in pictures:
        kind, _, content = picture["src"].partition(";base64,")
        assert kind in ("data:image/svg+xml", "data:image/png")
        assert base64.b64decode(content, validate=True)[:5] in (b"<?xml", b"\x89PNG\r")
        assert picture["alt"].endswith("The numbers are in the table below.") and picture["width"].isdigit()
    assert "Panels: alignment, image tokens (mean), 1,234 pairs of 617 prompts" in pictures[0]["alt"].replace("\n", " ")


def test_page_fetches_nothing(page):
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


def test_links_have_targets(page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for link in page.all("a"):
        assert link["href"].startswith("data:") or link["href"][1:] in names


def test_captions_questions_and_provenance_are_text(page):
    for text in (
        "Bands: 95% over prompts.",
        "both chosen by cross-validation on training pairs",
        f"{len(small_curve())} rows of reward_curve.parquet",
        sections()["comparisons"].question,
        "drawn by python -m probing.figures --results results --output drawn",
        "SHA-256 of its CSV",
        "1,234",
    ):
        assert text in page.visible_text


def test_whole_table_can_be_downloaded(page):
    links = {link["download"]: link["href"] for link in page.all("a") if "download" in link}
    assert set(links) == {"reward_curve.csv", "comparisons.csv"}
    content = base64.b64decode(links["reward_curve.csv"].partition(";base64,")[2])
    assert content == small_curve().to_csv(index=False, lineterminator="\n").encode()


@pytest.mark.usefixtures("blank_figures")
def test_long_and_wide_tables_are_cut(tmp_path):
    long = pd.DataFrame({f"c{i}": range(12_000) for i in range(60)})
    page = write_report(write_results(tmp_path / "results", outcomes=long), tmp_path / "report.html")
    assert len(page.text) < 2_000_000
    assert (
        "Table: 12,000 rows, 60 columns" in page.visible_text
        and "The first 100 of 12,000 rows. 20 more columns" in page.visible_text
    )
    assert "see outcomes.parquet in the folder of results" in page.visible_text


@pytest.mark.usefixtures("blank_figures")
def test_constant_columns_are_shown_once(tmp_path):
    table = pd.DataFrame({"a": [1.23456, 2.0], "model": ["only", "only"], "none": [None, None], "list": [[1], [1]]})
    page = write_report(write_results(tmp_path / "results", extra=table), tmp_path / "report.html")
    assert "The same in every row: model only; none (empty); list [1]." in page.visible_text
    assert '<td class="n">1.235</td>' in page.text


def test_overall_statements_are_at_the_top(page):
    top = page.visible_text.split(sections()["reward_curve"].question)[0]
    assert "alignment: better than latents by overall of text." in top and "by stream of" not in top
    assert (
        page.visible_text.count("quality: better than random-init by stream of image.") >= 2
    )  # as a statement, and in the table


@pytest.mark.usefixtures("blank_figures")
def test_statements_name_model_and_site(tmp_path):
    table = pd.DataFrame(
        {
            "model": ["s", "m"],
            "facet": "quality",
            "sigma": [0.6, None],
            "stream": "text",
            "statement": ["grows.", "grows."],
        }
    )
    page = write_report(write_results(tmp_path / "results", linearity=table), tmp_path / "report.html")
    assert "s, quality, text, σ = 0.6: grows." in page.visible_text and "m, quality, text: grows." in page.visible_text


@pytest.mark.usefixtures("blank_figures")
def test_best_cell_is_chosen_on_training_pairs(tmp_path):
    curve = small_curve().assign(cv_accuracy=0.5, probe="logistic")
    here = (curve["block"] == 1) & (curve["control"] == "trained") & (curve["sigma"] == 0.6)
    curve.loc[here, "cv_accuracy"] = 0.9
    keys = ["model", "facet", "probe", "stream", "reduction", "sigma", "block", "control"]
    measures = curve.loc[curve["control"] == "trained", keys].assign(metric="may_be_best", value=1.0)
    page = write_report(
        write_results(tmp_path / "results", reward_curve=curve, measures=measures), tmp_path / "report.html"
    )
    cells = page.visible_text.split("Best cell of each facet")[1].split("Chosen by cross-validation")[0]
    assert "quality 64.0% [61.0, 67.0] image mean 0.6 1 90.0% 0, 1, 2, 3 1,234 617" in cells


@pytest.mark.usefixtures("blank_figures")
def test_figure_without_its_table_is_left_out(tmp_path):
    page = write_report(write_results(tmp_path / "results", comparisons=None), tmp_path / "report.html")
    assert len(page.all("img")) == 2 and "comparisons" not in {a.get("id") for a in page.all("section")}


def nothing_to_draw(table):
    raise NothingToDraw("no draws were measured.")


def test_empty_figure_is_named_and_joined_table_is_drawn(results):
    figures = {"curve": ("reward_curve", nothing_to_draw), "differences": ("comparisons", figure_comparisons)}
    sources = collect(figures, results, join=lambda table, name: table[table["facet"] == "quality"])
    page = Page(build_page(sources, command="c"))
    assert "Curve is not drawn: no draws were measured." in page.visible_text and len(page.all("img")) == 1
    assert "alignment" not in page.all("img")[0]["alt"] and "Table: 12 rows" in page.visible_text


def test_caption_below_all_axes_becomes_text(tmp_path):
    figure = Figure()
    figure.subplots().set_xlabel("block")
    figure.supxlabel("Dots: pairs, cross-\nvalidated.")
    picture = draw_picture(FigureInput("dots", lambda table: figure, pd.DataFrame(), None))
    assert picture.caption == "Dots: pairs, cross-validated." and figure.get_supxlabel() == ""
    assert picture.alt == "Dots. Horizontal: block. The numbers are in the table below."


@pytest.mark.usefixtures("blank_figures")
def test_csv_beside_figures_is_read_and_provenance_compared(results, tmp_path):
    drawn = tmp_path / "before"
    assert main(["--results", str(results), "--output", str(drawn), "--no-page"]) == 0
    assert not list(tmp_path.rglob("*.html")) and not list(results.glob("*.html"))
    record = json.loads((drawn / "comparisons.json").read_text())
    (drawn / "comparisons.json").write_text(json.dumps(record | {"table_sha256": "0"}))
    page = write_report(drawn, tmp_path / "report.html")
    assert len(page.all("img")) == 3 and "rows of reward_curves.csv" in page.visible_text
    page = write_report(results, tmp_path / "report.html", "--figures", str(drawn))
    assert "drawn before by python -m probing.figures --results results --output before with" in page.visible_text
    assert "from the same rows" in page.visible_text and "from other rows than these" in page.visible_text


@pytest.mark.usefixtures("blank_figures")
def test_text_of_tables_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>\"'&"
    curve = small_curve().assign(model=evil, store=evil, cv_accuracy=0.5)
    comparisons = with_statements(comparison_table()).assign(statement=evil)
    changed = {"reward_curve": curve, "comparisons": comparisons, "x\" onload='y": pd.DataFrame({evil: [evil, "b"]})}
    page = write_report(write_results(tmp_path / "results", **changed), tmp_path / "report.html")
    assert len(page.all("script")) == 1 and "<script>alert" not in page.text
    assert evil in page.visible_text and any(evil in picture["alt"] for picture in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_same_tables_give_same_bytes(tmp_path):
    # One figure, which is drawn soonest.
    results = write_results(tmp_path / "results", reward_curve=None)
    for name in ("a", "b"):
        write_report(results, tmp_path / name / "report.html")
    assert (tmp_path / "a/report.html").read_bytes() == (tmp_path / "b/report.html").read_bytes()
    text = (tmp_path / "a/report.html").read_text()
    assert str(tmp_path) not in text and str(results.parent) not in text


def test_every_experiment_with_a_figure_has_a_section():
    assert {figure.table for figure in FIGURES.values()} <= set(sections())


@pytest.mark.usefixtures("blank_figures")
def test_bad_input_ends_in_one_sentence_and_no_page(results, tmp_path, capsys):
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
        new = tmp_path / "new"
        assert main([*options, "--output", str(tmp_path / "drawn"), "--page", str(new / "report.html")]) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and error.strip().count("\n") == 0
    assert not new.exists()
    assert main(["--results", str(results), "--output", str(tmp_path / "drawn"), "--page", str(empty)]) == 2
    assert f"--page is a file, and {empty} is a folder" in capsys.readouterr().err
    assert list(empty.iterdir()) == []


@pytest.mark.usefixtures("blank_figures")
def test_default_page_is_in_the_results_folder(tmp_path):
    folder = write_results(tmp_path / "results", reward_curve=None)
    assert main(["--results", str(folder), "--output", str(tmp_path / "drawn")]) == 0
    assert "<figure>" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("blank_figures")
def test_failed_write_keeps_the_old_page(results, tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("probing.files.os.fsync", full)
    monkeypatch.setattr("probing.api.figures.save_figure", lambda *_, **__: [])
    assert main(["--results", str(results), "--output", str(tmp_path), "--page", str(tmp_path / "report.html")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "old"
