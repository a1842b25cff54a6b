"""Names are data: every figure, file and page shows them literally."""

from __future__ import annotations

import subprocess
import sys
import warnings
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from probing.analysis.reward_curve.comparisons import _statement
from probing.experiments import FIGURES, resolve
from probing.figures import main
from probing.plots import save_figure, style
from probing.plots.grid import add_caption
from probing.plots.text import LONGEST, fonts, missing_characters, shown_name
from probing.result_tables import read_result
from tests.plots.figure_tables import comparison_table, curve_table, heat_map_tables, study_tables
from tests.plots.similarity_tables import similarity_tables, token_table
from tests.plots.sweep_tables import sweep_tables

HOSTILE = [
    "cost $5 or $10",
    "m$$",
    "$\\frac{a}{$",
    "_hidden",
    "a{b}",
    "{}",
    "{0}",
    "%s",
    "100%",
    "<script>alert(1)</script>",
    "\\frac",
    "two\nlines\tand a tab",
    "x" * 500,
    "word " * 80,
    "\u65e5\u672c\u8a9e",
    "\U0001f600",
    "\u0645\u0631\u062d\u0628\u0627",
    "\x1b[31mred\x00",
    "\u202eright to left",
    "NA",
    "007",
    "a,b",
    '"quoted"',
    "'",
    "&amp;",
    "#",
    "^_^",
    "None",
]


@pytest.fixture(scope="module")
def tables():
    return {
        "reward_curve": curve_table(),
        "comparisons": comparison_table(),
        **sweep_tables(),
        **similarity_tables(),
        **heat_map_tables(),
        **study_tables(),
        "token_maps": token_table(),
    }


def renamed(table, name):
    """Rename a table's model, facets, stages and prompts, and add a reference of that name."""
    changed = table.copy()
    for column in ("model", "prompt", "data", "store"):
        if column in changed:
            changed[column] = name
    if "facet" in changed:
        several = changed["facet"].nunique() > 1
        changed["facet"] = name + changed["facet"].astype(str) if several else name
    for column in ("stage", "other_stage"):
        if column in changed:
            changed[column] = changed[column].map(lambda stage: stage if stage in (None, "all") else f"{name}{stage}")
    if "baseline_chosen" in changed or "baseline" in changed:
        row = changed.iloc[[-1]].assign(baseline="reference", baseline_chosen=name, scope="overall")
        changed = pd.concat([changed, row], ignore_index=True)
    if "control" in changed and "reduction" in changed and "latents" in set(changed["control"]) and "seed" in changed:
        row = changed[changed["control"] == "latents"].iloc[[0]].assign(control="reference", model=name, reduction=None)
        changed = pd.concat([changed, row], ignore_index=True)
    return changed


def drawn_texts(figure, *, draw=False):
    if draw:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")
            FigureCanvasAgg(figure).draw()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.slow
@pytest.mark.parametrize("figure_name", ["reward_curves", "depth_curves", "combinations", "noise", "scaling"])
@pytest.mark.parametrize("name", HOSTILE)
def test_further_figures_show_every_name(tables, name, figure_name):
    source, function = FIGURES[figure_name].table, resolve(FIGURES[figure_name].draw)
    words = " ".join(" ".join(drawn_texts(function(renamed(tables[source], name)))).split())
    assert " ".join(shown_name(name).split()) in words


@pytest.mark.parametrize(
    "name",
    [name if number % 3 == 0 else pytest.param(name, marks=pytest.mark.slow) for number, name in enumerate(HOSTILE)],
)
def test_figures_show_every_name(tables, name):
    for figure_name in ("comparisons", "controls"):
        source, function = FIGURES[figure_name].table, resolve(FIGURES[figure_name].draw)
        texts = drawn_texts(function(renamed(tables[source], name)))
        words = " ".join(" ".join(texts).split())
        assert " ".join(shown_name(name).split()) in words, figure_name


QUICK = ("comparisons", "controls", "token_maps")


@pytest.mark.parametrize(
    "figure_name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in FIGURES if name not in QUICK)]
)
def test_every_figure_is_written_with_hostile_names(tables, figure_name, tmp_path):
    source, function = FIGURES[figure_name].table, resolve(FIGURES[figure_name].draw)
    name = "_m$$ {}%s$5 <b>\t\n\x00\u65e5"
    table = renamed(tables[source], name)
    with missing_characters():
        written = save_figure(function(table), table, tmp_path, figure_name, provenance={"name": name})
    assert all(path.stat().st_size for path in written)


def test_legend_shows_labels_with_an_underscore():
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    handles = [Line2D([], [], label=label) for label in ("_hidden", "plain", "__x")]
    style.legend_below(ax, handles, columns=1)
    add_caption(figure, "Caption.", handles)
    for legend in (ax.get_legend(), figure.legends[0]):
        assert [text.get_text() for text in legend.get_texts()] == ["_hidden", "plain", "__x"]
    assert [handle.get_label() for handle in handles] == ["_hidden", "plain", "__x"]


def test_names_are_literal_and_cut_in_the_middle():
    with style.house_style():
        assert not Text(text="$x$").get_parse_math()
    assert shown_name("cost $5 or $10") == "cost $5 or $10"
    assert shown_name("a\tb\n c\x07") == "a b c\ufffd"
    long = shown_name("begin" + "x" * 500 + "end")
    assert long.startswith("begin") and long.endswith("end") and len(long.replace("\n", "")) <= LONGEST


def test_only_installed_fonts_are_listed():
    assert fonts()[0] == "DejaVu Sans"


def test_missing_characters_are_reported_once(tables, tmp_path, capsys):
    results = tmp_path / "results"
    results.mkdir()
    strange = "\U0001fae8\ue123 model"
    for name in ("comparisons", "controls"):
        renamed(tables[name], strange).to_parquet(results / f"{name}.parquet")
    assert main(["--results", str(results), "--output", str(tmp_path / "figures")]) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "No font on this machine has" in error and "\ue123" in error
    assert (results / "report.html").is_file()


@pytest.mark.usefixtures("blank_figures")
def test_names_are_unchanged_by_the_csv(tables, tmp_path):
    for name in ("NA", "007", "None", "null", "1e5", "a,b", '"q"', "line\nbreak"):
        table = tables["comparisons"].assign(facet=name, model=name)
        (_, _, csv, _) = save_figure(resolve(FIGURES["comparisons"].draw)(table), table, tmp_path, "x", provenance={})
        again = read_result(csv, "a test")
        assert set(again["facet"]) == {name} and set(again["model"]) == {name}


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.usefixtures("blank_figures")
def test_page_escapes_hostile_names(tables, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    name = "<script>alert('$5 {} %s')</script>\" onload=\"x"
    for table in ("reward_curve", "comparisons"):
        renamed(tables[table], name).to_parquet(results / f"{table}.parquet")
    page_file = tmp_path / "page.html"
    assert main(["--results", str(results), "--output", str(tmp_path / "figures"), "--page", str(page_file)]) == 0
    page = _Tags()
    page.feed(page_file.read_text(encoding="utf-8"))
    assert page.tags.count("script") == 1 and "onload" not in page.attributes
    assert name in " ".join(page.words)


def test_statement_with_braces():
    row = {
        "facet": "f{}",
        "baseline": "reference",
        "baseline_chosen": "gpt{} {0}",
        "baseline_value": 0.5,
        "chosen": "c",
        "value": 0.6,
        "difference": 0.1,
        "ci_low": 0.05,
        "ci_high": 0.15,
        "p_value_holm": 0.01,
        "verdict": "above",
    }
    assert _statement(row).startswith("f{}: the trained backbone (c; 60.0%) is above gpt{} {0} (50.0%): +10.0 points")


@settings(max_examples=15)
@given(st.text(max_size=200))
def test_any_name_is_drawn(name):
    check_any(name)


@pytest.mark.slow
@settings(max_examples=1500)
@given(st.text(max_size=400))
def test_any_name_is_drawn_many_times(name):
    check_any(name)


def check_any(name):
    with style.house_style():
        figure = Figure(figsize=(2, 2))
        ax = figure.subplots()
        ax.set_title(shown_name(name))
        style.legend_below(ax, [Line2D([], [], label=shown_name(name))], columns=1)
    shown = drawn_texts(figure, draw=True)
    assert shown_name(name) in shown or not shown_name(name)
    assert all(len(line) <= LONGEST for line in shown_name(name).split("\n"))


@pytest.mark.slow
def test_ascii_terminal(tables, tmp_path):
    tables["controls"].to_parquet(tmp_path / "controls.parquet")
    folder = tmp_path / "\u65e5"
    command = [sys.executable, "-m", "probing.figures", "--results", str(tmp_path), "--output", str(folder)]
    ran = subprocess.run(command, env=ascii_environment(), capture_output=True, check=False)
    assert ran.returncode == 0 and b"controls.png" in ran.stdout and b"\\u65e5" in ran.stdout, ran.stderr


def ascii_environment():
    import os

    return {**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
