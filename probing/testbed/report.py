"""The testbed on one page: models, judge, pairs, ceilings and checks: ``python -m probing.testbed.report``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from probing.commands import CommandParser, run_command
from probing.preferences import PreferenceData
from probing.testbed import preferences, report_figures, shortcut, truth
from probing.testbed.judge import EACH, WHOLE
from probing.testbed.page import Page
from probing.testbed.sizes import SEEDS, SIZES, is_along, run_name, size_of

WEIGHTS = Path(__file__).parent / "weights"
_SHOWN = 6
"""Pairs of each facet."""


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.testbed.report", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("cache/testbed.html"), help="the page")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder of the weights and their cards")
    return parser


def run(arguments: argparse.Namespace) -> None:
    write(arguments.output, arguments.weights)
    print(f"Report: {arguments.output}")


def write(output: Path, weights: Path = WEIGHTS) -> None:
    """Write the page from the cards beside the weights, and from the data themselves."""
    page = Page("The testbed")
    page.say(
        "A family of small text-to-image models trained from nothing, preference pairs whose truth is known, and the "
        "checks that both are what they are said to be. All intervals are 95%."
    )
    _models(page, weights)
    _judge(page, _card(weights / "judge"), weights / "judge")
    data = preferences.load()
    _pairs(page, data, _card(weights / "generated"))
    _truth(page, data)
    _shortcut(page, shortcut.load())
    _rival(page, _card(weights / "rival"))
    page.write(output)


def _card(folder: Path) -> dict[str, Any] | None:
    path = folder / "card.json"
    return json.loads(path.read_text()) if path.exists() else None


def _models(page: Page, weights: Path) -> None:
    page.section("Models")
    cards = {size: card for size in SIZES if (card := _card(weights / size)) is not None}
    trainings = {p.parent.name: _card(p.parent) or {} for p in sorted(weights.glob("trainings/*/card.json"))}
    every = [run_name(size, seed) for size in SIZES for seed in SEEDS[size]]
    if missing := [name for name in every if name not in {**cards, **trainings}]:
        page.miss(
            f"Without a card: {', '.join(missing)}; python -m probing.testbed.train mmdit and assemble make the "
            f"weights, card --size SIZE measures them."
        )
    if cards:
        page.table(pd.DataFrame([_summary(name, card) for name, card in {**cards, **trainings}.items()]))
        page.say(_between_seeds(cards, trainings))
        page.figure(
            report_figures.losses_by_size(cards, trainings),
            "Flow-matching loss on unseen scenes by noise level; open marks are further seeds.",
        )
        page.figure(
            report_figures.told_apart_by_size(cards, trainings),
            "What is known: how often the loss of an unseen scene is lower under its own caption than under one that "
            "contradicts it in that attribute (of whole captions, under any); a grey dash: chance.",
        )
        page.figure(
            report_figures.judged_by_size(cards, trainings),
            "How often the judge finds in a generated picture what its caption says; a grey dash: what another "
            "picture's caption says.",
        )
    along = {name: card for name, card in trainings.items() if is_along(name)}
    if along:
        page.figure(report_figures.along_training(cards, along), "The same over one training.")
    for size in cards:
        if (weights / size / "samples.png").exists():
            page.heading(f"testbed-{size}")
            page.file(
                weights / size / "samples.png", "Held-out captions, one generated picture each, none chosen by hand"
            )


def _between_seeds(cards: Mapping[str, dict[str, Any]], trainings: Mapping[str, dict[str, Any]]) -> str:
    """Say how far two trainings of one size are apart in loss, beside neighbouring sizes: intervals are over scenes."""
    pairs = [(size, name) for size in cards for name in trainings if size_of(name) == size and not is_along(name)]
    if not pairs:
        return "No size has two seeds yet, so how far trainings of one size differ is not known."
    loss = {name: _loss(card) for name, card in {**cards, **trainings}.items()}
    said = [f"{name} differs from {size} by {abs(loss[name] - loss[size]):.4f}" for size, name in pairs]
    gaps = [f"{one} from {other} by {loss[one] - loss[other]:.4f}" for one, other in pairwise(cards)]
    return f"In mean held-out loss {'; '.join(said)}. Of neighbouring sizes {'; '.join(gaps) or 'there are none'}."


def _loss(card: dict[str, Any]) -> float:
    return next(row["loss"] for row in card["held_out_loss"] if row.get("sigma") is None)


def _summary(name: str, card: dict[str, Any]) -> dict[str, Any]:
    mean = [row for row in card["held_out_loss"] if row.get("sigma") is None]
    judged = {row["attribute"]: _interval(row) for row in card["judged"]}
    told = {row["attribute"]: _interval(row) for row in card["told_apart"]}
    return {
        "model": f"testbed-{name}",
        "parameters": f"{card['parameters']:,}",
        "steps": f"{card['steps']:,}",
        "held-out loss": f"{mean[0]['loss']:.4f} ± {mean[0]['half_width']:.4f}" if mean else None,
        "attributes told apart, %": told.get(EACH),
        "attributes obeyed, %": judged.get(EACH),
        "whole caption obeyed, %": judged.get(WHOLE),
    }


def _judge(page: Page, card: dict[str, Any] | None, folder: Path) -> None:
    page.section("Judge")
    if card is None:
        page.miss("There is no judge; python -m probing.testbed.train judge, then judge-card.")
        return
    page.say(
        f"A network of {card['parameters']:,} parameters, trained on {card['training_scenes']:,} renders of its own; "
        "it never sees a caption. What it reads of unseen renders, and how often it finds the one attribute in which a "
        "caption is wrong, and no other:"
    )
    read = {row["attribute"]: _interval(row, 2) for row in card["clean"]}
    caught = {row["attribute"]: _interval(row, 2) for row in card["caught"]}
    page.table(
        pd.DataFrame(
            [(name, said, caught.get(name)) for name, said in read.items()],
            columns=["attribute", "read rightly, %", "contradiction caught, %"],
        )
    )
    page.figure(report_figures.judge_under_damage(card), "Whole captions read rightly in spoilt renders, by strength.")
    if (folder / "samples.png").exists():
        page.file(
            folder / "samples.png", "Unseen renders, more spoilt from row to row; crosses are where things are seen"
        )


def _pairs(page: Page, data: PreferenceData, made: dict[str, Any] | None) -> None:
    page.section("Pairs")
    page.say(
        f"Annotators choose by Bradley–Terry: with odds exp(difference of rewards / {preferences.TEMPERATURE:g}). A "
        f"wrong attribute costs {-preferences.WRONG_ATTRIBUTE:g}, damage {-preferences.DAMAGE:g} times its strength."
    )
    prompt_of = data.items.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    for facet, pairs in data.pairs[data.pairs["split"] == "test"].groupby("facet", sort=False):
        page.heading(f"{facet}: the chosen picture stands left")
        groups = []
        for row in pairs.iloc[:_SHOWN].to_dict("records"):
            sides = ("first", "second") if row["choice"] == 1 else ("second", "first")
            rewards = " / ".join(f"{row[f'reward_{side}']:.2f}" for side in sides)
            said = f"{prompt_of[row['prompt_id']]} ({row['attribute']}; rewards {rewards})"
            groups.append(([data.open_image(row[side]) for side in sides], said))
        page.pictures(groups)
    if made is None:
        page.miss("There are no generated pictures yet; python -m probing.testbed.train generated makes them.")
        return
    page.say(f"{made['pictures']:,} generated pictures of {made['prompts']:,} prompts, by model, on average:")
    page.table(
        pd.DataFrame(made["models"]).rename(
            columns={"source_model": "model", "n": "pictures", "wrong": "wrong attributes"}
        )
    )


def _truth(page: Page, data: PreferenceData) -> None:
    page.section("Ceilings")
    page.say(
        "The best reachable accuracy is known exactly. With the true reward as the scorer, the pairs must reach it:"
    )
    page.table(_accuracy_table(truth.truth_check(data)))
    page.say("Of the test pairs, by what they are about:")
    single = data.keep(
        ((data.pairs["split"] == "test") & data.pairs["facet"].isin(["alignment", "quality"])).to_numpy()
    )
    by_attribute = truth.truth_check(single, ("facet", "attribute")).sort_values(["facet", "attribute"])
    page.table(_accuracy_table(by_attribute))


def _shortcut(page: Page, data: PreferenceData) -> None:
    page.section("Planted shortcut")
    page.say(
        "In testbed-shortcut a small mark in the corner is on the chosen picture in "
        f"{shortcut.MARKED_CHOSEN['train']:.0%} of training pairs and in {shortcut.MARKED_CHOSEN['test']:.0%} of test "
        "pairs. A probe of the corner's pixels alone wins on the first and falls to chance on the second; the true "
        "reward does not care where the mark is."
    )
    rewards = {
        "corner's pixels": corner_rewards(data),
        "true reward": dict(zip(data.items["item_id"], data.items["reward"], strict=True)),
    }
    tables = []
    for name, of in rewards.items():
        whole = truth.accuracy(data, of, ("split",)).assign(mark="on either")
        parts = truth.shortcut_check(data, of)
        parts["mark"] = np.where(parts["marked_chosen"], "on the chosen", "on the rejected")
        tables.append(pd.concat([whole, parts]).assign(reward=name))
    table = pd.concat(tables)[["reward", "split", "mark", "accuracy", "ci_low", "ci_high", "ceiling", "n_pairs"]]
    page.table(_accuracy_table(table))
    marked = data.pairs[data.pairs["split"] == "train"].iloc[:3].to_dict("records")
    page.pictures(
        [
            ([data.open_image(row["first"]), data.open_image(row["second"])], f"the mark is on the {row['marked']}")
            for row in marked
        ]
    )


def corner_rewards(data: PreferenceData) -> dict[str, float]:
    """Fit a logistic probe to the 8×8 pixels of the marked corner on training pairs; reward every item by it."""
    corner = {}
    for item_id in data.items["item_id"]:
        corner[item_id] = np.asarray(data.open_image(item_id))[-8:, -8:].astype(float).ravel() / 255
    train = data.pairs[data.pairs["split"] == "train"]
    differences = np.stack([corner[a] - corner[b] for a, b in zip(train["first"], train["second"], strict=True)])
    probe = LogisticRegression(fit_intercept=False, C=0.05, max_iter=1000).fit(differences, train["choice"])
    return {item_id: float(probe.coef_[0] @ pixels) for item_id, pixels in corner.items()}


def _rival(page: Page, card: dict[str, Any] | None) -> None:
    page.section("Rival")
    if card is None:
        page.miss("There is no rival; python -m probing.testbed.train rival, then rival-card.")
        return
    page.say(
        f"An image–text model of {card['parameters']:,} parameters, trained from nothing on the same scenes and then "
        "on the training pairs: what a reward without diffusion reaches on the test pairs."
    )
    page.table(_accuracy_table(pd.DataFrame(card["accuracy"])))
    if "agreement" in card:
        page.say("Before it heard of any choice, by the agreement of picture and caption alone:")
        page.table(_accuracy_table(pd.DataFrame(card["agreement"])))
    page.say("Of alignment, by what is wrong:")
    page.table(_accuracy_table(pd.DataFrame(card["by_attribute"])))


def _accuracy_table(table: pd.DataFrame) -> pd.DataFrame:
    said = table.assign(
        accuracy=[_interval(row) for row in table.to_dict("records")],
        ceiling=[f"{100 * value:.1f}" for value in table["ceiling"]],
        n_pairs=[f"{value:,}" for value in table["n_pairs"]],
    ).drop(columns=["ci_low", "ci_high"])
    return said.rename(columns={"accuracy": "accuracy, %", "ceiling": "ceiling, %", "n_pairs": "pairs"})


def _interval(row: Mapping[Any, Any], digits: int = 1) -> str:
    low, high = (f"{100 * row[end]:.{digits}f}" for end in ("ci_low", "ci_high"))
    return f"{100 * row['accuracy']:.{digits}f} [{low}, {high}]"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
