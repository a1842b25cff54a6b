"""README says what was measured, and names commands that exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import probing
from probing.backbones import model_names, resolve
from probing.console import module_of
from probing.plots.curves import facets_in
from probing.preferences import BENCHMARKS
from probing.preferences.registry import NAMES
from probing.reproduce import RIVAL
from probing.result_tables import read_result
from probing.shipped import WEIGHTS
from probing.statistics import RULES
from probing.table_files import write_parquet
from probing.testbed.judge import EACH, WHOLE
from probing.testbed.recipes.assemble import TRAININGS
from probing.testbed.sizes import SEEDS, SIZES, run_name

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


CONTROLS = {
    "trained": "trained backbone, best cell",
    "random-init": "random-initialised backbone",
    "foreign prompt": "trained, another prompt's words",
    "empty prompt": "trained, no words",
    "latents": "pooled VAE latents",
    "image stats": "image statistics",
    "source model": "name of the source model",
    "strength": "strength of degradation alone",
}


def findings() -> list[str]:
    """The rows of the table of findings, from the committed tables."""
    controls, curve = (
        read_result(ROOT / "figures" / f"{name}.csv", "figures") for name in ("controls", "reward_curves")
    )
    facets = facets_in(controls)

    def row(name: str, rows: pd.DataFrame) -> str:
        by_facet = rows.set_index("facet").to_dict("index")
        return f"| {name} | " + " | ".join(said(by_facet[f]) if f in by_facet else "" for f in facets) + " |"

    def said(one) -> str:
        mark = "*" if one.get("difference_verdict") == "above" else ""
        return f"{100 * one['value']:.1f} [{100 * one['ci_low']:.1f}, {100 * one['ci_high']:.1f}]{mark and ' ' + mark}"

    made = [row(name, controls[controls["control"] == control]) for control, name in CONTROLS.items()]
    rival = curve[(curve["control"] == "reference") & (curve["facet"].isin(facets))]
    made.append(row("`testbed-rival`", rival))
    ceilings = controls.drop_duplicates("facet").set_index("facet")["ceiling"]
    return [*made, "| annotators' ceiling | " + " | ".join(f"{100 * ceilings[f]:.1f}" for f in facets) + " |"]


@pytest.mark.parametrize("row", findings())
def test_findings_are_those_of_the_tables(row):
    assert row.replace("*", r"\*") in DOCS["findings.md"], "\n".join(findings())


SLOPES = [("all", 0.6, False), ("alignment", 0.6, False), ("quality", 0.005, True), ("generated", 0.6, True)]


@pytest.mark.parametrize(("facet", "sigma", "beyond_random"), SLOPES)
def test_accuracy_rises_with_size_as_stated(facet, sigma, beyond_random):
    table = read_result(ROOT / "figures" / "scaling.csv", "figures")
    fits = table[(table["kind"] == "fit") & (table["head"] == "best") & (table["against"] == "parameters")]
    by = fits[(fits["facet"] == facet) & (fits["sigma"] == sigma)].set_index("series")["verdict"]
    assert by["trained"] == "above" and by["random-init"] == "not distinguished"
    assert (by["trained less random-init"] == "above") == beyond_random


def models() -> list[str]:
    """The rows of the table of models, from their cards."""
    rows = []
    for name in (run_name(size, seed) for size in SIZES for seed in SEEDS[size]):
        folder = WEIGHTS / name if name in SIZES else WEIGHTS / TRAININGS / name
        card = json.loads((folder / "card.json").read_text())
        mean = next(row for row in card["held_out_loss"] if row["sigma"] is None)
        loss = f"{mean['loss']:.3f} ± {mean['half_width']:.3f}"
        judged = {row["attribute"]: row for row in card["judged"]}
        obeyed = " | ".join(
            f"{100 * row['accuracy']:.1f} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
            for row in (judged[EACH], judged[WHOLE])
        )
        link = f"[card](../{(WEIGHTS / name / 'README.md').relative_to(ROOT)})" if name in SIZES else ""
        rows.append(f"| `testbed-{name}` | {card['parameters']:,} | {loss} | {obeyed} | {link} |")
    return rows


def test_both_has_no_slope_over_sizes():
    table = read_result(ROOT / "figures" / "scaling.csv", "figures")
    of = (table["kind"] == "fit") & (table["head"] == "best") & (table["facet"] == "both")
    trained = table[of & (table["against"] == "parameters") & (table["series"] == "trained")]
    assert len(trained) and (trained["verdict"] == "not distinguished").all()


def test_words_matter_to_alignment_alone():
    table = read_result(ROOT / "figures" / "controls.csv", "figures").set_index(["control", "facet"])
    for control in ("foreign prompt", "empty prompt"):
        assert table.loc[(control, "alignment"), "verdict"] == "not distinguished"
        assert table.loc[(control, "alignment"), "difference_verdict"] == "above"
        for facet in ("quality", "generated"):
            assert table.loc[(control, facet), "difference_verdict"] == "not distinguished"
    assert table.loc[("source model", "generated"), "difference"] < 0


def test_shapes_are_what_size_buys():
    shapes = []
    for size in SIZES:
        judged = json.loads((WEIGHTS / size / "card.json").read_text())["judged"]
        shapes += [row for row in judged if row["attribute"] == "shape"]
    first, *others = ({key: f"{100 * row[key]:.1f}" for key in ("accuracy", "ci_low", "ci_high")} for row in shapes)
    said = " ".join(DOCS["testbed.md"].split())
    assert f"{first['accuracy']}% [{first['ci_low']}, {first['ci_high']}]" in said
    assert "{}, {} and {}%".format(*(row["accuracy"] for row in others)) in said


@pytest.mark.parametrize("row", models())
def test_models_are_those_of_the_cards(row):
    assert row in DOCS["testbed.md"], "\n".join(models())


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for link, anchor in re.findall(r"\]\(([^)#]*)(#[^)]*)?\)", path.read_text()):
        target = path.parent / link if link else path
        assert link.startswith("http") or target.exists(), link
        if anchor and not link.startswith("http"):
            assert anchor[1:] in anchors(target.read_text()), link + anchor


def anchors(text: str) -> set[str]:
    """The anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> list[str]:
    joined = re.sub(r"\\\n\s*", " ", "\n".join(path.read_text() for path in TEXTS))
    return re.findall(r"^python -m (probing\.[^\n#]+)", joined, flags=re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_every_command_can_be_parsed(command, tmp_path, monkeypatch):
    module, *arguments = shlex.split(command)
    parser = module_of(module.removeprefix("probing.")).PARSER
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"stage": ["B1"], "first_block": 0, "last_block": 1, "block": 0, "other": 1, "value": 1.0})
    for path in (Path(argument) for argument in arguments if argument.endswith(".parquet")):
        write_parquet(path, table)
    parser.parse(arguments)


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_code_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (first, kept), (second,) = blocks(README), blocks(DOCS["guide.md"])
    # A quarter of the curves is as good, and sooner measured.
    first = first.replace("[0.005, 0.6]", "[0.6]").replace('["image", "text"]', '["image"]')
    scope: dict[str, Any] = {}
    exec(first, scope)
    assert {"alignment", "quality"} <= set(scope["curve"].table["facet"])
    assert scope["figure"].axes
    exec(kept.replace("reward.score(", "score = reward.score("), scope)
    assert scope["score"].shape == (1,) and (tmp_path / "my-reward" / "README.md").is_file()
    # The second reads the store that the first has written.
    exec(second, {})


def test_the_first_lines_run_on_an_sd3_folder(tiny_folder, tmp_path):
    pairs = probing.load_pairs("testbed", where="facet == 'quality'", limit=200)
    store = probing.extract(tiny_folder, pairs, sigmas=[0.005], output=tmp_path / "x.zarr")
    curve = probing.reward_curve(store, shuffles=2)
    assert set(curve.table["model"]) == {tiny_folder.name} and curve.plot().axes


def test_models_exist():
    named = {name for path in TEXTS for name in re.findall(r"`(sd3[a-z0-9-]*|testbed-[a-z]+)`", path.read_text())}
    assert named <= {*model_names(), *NAMES, RIVAL}


def test_every_model_has_its_size_in_the_table():
    rows = [row for row in DOCS["models.md"].splitlines() if row.startswith("| `")]
    for name in model_names():
        if name.startswith("testbed"):
            continue
        (row,) = [row for row in rows if re.search(rf"`{re.escape(name)}`", row)]
        names = re.findall(r"`([^`]+)`", row.split("|")[1])
        sizes = row.split("|")[4].replace("B", "").split(",")
        said = float(sizes[names.index(name)] if len(sizes) > 1 else sizes[0])
        assert said == round(resolve(name).architecture.parameters / 1e9, 1)
        blocks = row.split("|")[3].split(",")
        counts = [int(n) for n in re.findall(r"\d+", blocks[names.index(name)] if len(blocks) > 1 else blocks[0])]
        assert sum(counts) == resolve(name).architecture.num_blocks


def test_the_table_of_benchmarks_is_that_of_the_code():
    header = (
        "| benchmark | `--data` | where to get it | last known there | splits | its authors score by | they report |"
    )
    rows = DOCS["preference_data.md"].split(header)[1].split("\n\n")[0].splitlines()[2:]
    said = [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows]
    expected = {
        (
            benchmark.title,
            f"`{name}`",
            f"hub: `{benchmark.hub}`" if benchmark.hub else benchmark.source,
            benchmark.seen,
            ", ".join(benchmark.files),
            f"`{benchmark.rule}`",
            benchmark.reported,
        )
        for name, benchmark in BENCHMARKS.items()
    }
    assert set(said) == expected and len(said) == len(BENCHMARKS)


def test_the_rules_of_the_docs_are_those_of_the_code():
    table = DOCS["preference_data.md"].split("| rule | |")[1].split("\n\n")[0]
    named = [rule for row in table.splitlines()[2:] for rule in re.findall(r"`([a-z-]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(RULES)
