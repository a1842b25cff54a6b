"""Write one page about the testbed, with models, judge, pairs and checks: ``python -m probing.testbed.report``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from probing.commands import run_command
from probing.options import OptionsParser
from probing.preferences import PreferenceData
from probing.shipped import WEIGHTS
from probing.testbed import preferences, report_figures, shortcut, truth
from probing.testbed.judge import EACH, WHOLE
from probing.testbed.page import Page
from probing.testbed.rates import format_interval
from probing.testbed.sizes import SEEDS, SIZES, is_along, run_name, size_of

_SHOWN = 6
"""Pairs of each facet on the page."""


@dataclass(frozen=True)
class ReportOptions:
    """Options of the command.

    Attributes:
        output: The page to write.
        weights: Folder of weights and their cards.
    """

    output: Path = Path("cache/testbed.html")
    weights: Path = WEIGHTS


PARSER = OptionsParser("probing.testbed.report", ReportOptions, __doc__)


def run(options: ReportOptions) -> None:
    write(options.output, options.weights)
    print(f"Report: {options.output}")


def write(output: Path, weights: Path = WEIGHTS) -> None:
    """Write the page from the cards beside the weights and from the preference data."""
    page = Page(
        "The testbed",
        "Small text-to-image models trained from scratch, preference pairs with ground truth, and checks of both. All "
        "intervals are 95%.",
    )
    _models(page, weights)
    _judge(page, _card(weights / "judge"), weights / "judge")
    data = preferences.load()
    _pairs(page, data, _card(weights / "generated"))
    _truth(page, data)
    _shortcut(page, shortcut.load())
    _baseline(page, _card(weights / "rival"))
    page.write(output)


def _card(folder: Path) -> dict[str, Any] | None:
    path = folder / "card.json"
    return json.loads(path.read_text()) if path.exists() else None


def _models(page: Page, weights: Path) -> None:
    page.section("Models")
    cards = {size: card for size in SIZES if (card := _card(weights / size)) is not None}
    trainings = {p.parent.name: _card(p.parent) or {} for p in sorted(weights.glob("trainings/*/card.json"))}
    expected = [run_name(size, seed) for size in SIZES for seed in SEEDS[size]]
    if missing := [name for name in expected if name not in {**cards, **trainings}]:
        page.missing(
            f"Without a card: {', '.join(missing)}; run python -m probing.testbed.train mmdit and assemble for the "
            f"weights, then card --size SIZE."
        )
    if cards:
        page.table(pd.DataFrame([_summary(name, card) for name, card in {**cards, **trainings}.items()]))
        page.paragraph(_loss_differences(cards, trainings))
        page.figure(
            report_figures.losses_by_size(cards, trainings),
            "Flow-matching loss on held-out scenes by noise level; open marks are further seeds.",
        )
        page.figure(
            report_figures.discrimination_by_size(cards, trainings),
            "Discrimination: how often the loss of a held-out scene is lower under its caption than under one that "
            "contradicts it in that attribute (whole caption: in any attribute). Grey dash: chance.",
        )
        page.figure(
            report_figures.judged_by_size(cards, trainings),
            "How often a generated image matches its caption, according to the judge. Grey dash: a foreign caption.",
        )
    checkpoints = {name: card for name, card in trainings.items() if is_along(name)}
    if checkpoints:
        page.figure(report_figures.along_training(cards, checkpoints), "The same along one training.")
    for size in cards:
        if (weights / size / "samples.png").exists():
            page.heading(f"testbed-{size}")
            page.image_file(
                weights / size / "samples.png",
                "Held-out captions in the order they were drawn, one generated image each",
            )


def _loss_differences(cards: Mapping[str, dict[str, Any]], trainings: Mapping[str, dict[str, Any]]) -> str:
    """Compare the difference in loss between seeds with that between neighbouring sizes."""
    pairs = [(size, name) for size in cards for name in trainings if size_of(name) == size and not is_along(name)]
    if not pairs:
        return "No size has two seeds yet, so the difference between trainings of one size is unknown."
    loss = {name: _loss(card) for name, card in {**cards, **trainings}.items()}
    seeds = [f"{name} differs from {size} by {abs(loss[name] - loss[size]):.4f}" for size, name in pairs]
    sizes = [f"{small} from {large} by {loss[small] - loss[large]:.4f}" for small, large in pairwise(cards)]
    return f"Mean held-out loss: {'; '.join(seeds)}. Neighbouring sizes: {'; '.join(sizes) or 'none'}."


def _loss(card: dict[str, Any]) -> float:
    return next(row["loss"] for row in card["held_out_loss"] if row.get("sigma") is None)


def _summary(name: str, card: dict[str, Any]) -> dict[str, Any]:
    overall = [row for row in card["held_out_loss"] if row.get("sigma") is None]
    obeyed = {row["attribute"]: format_interval(row) for row in card["judged"]}
    discriminated = {row["attribute"]: format_interval(row) for row in card["discriminated"]}
    return {
        "model": f"testbed-{name}",
        "parameters": f"{card['parameters']:,}",
        "steps": f"{card['steps']:,}",
        "held-out loss": f"{overall[0]['loss']:.4f} ± {overall[0]['half_width']:.4f}" if overall else None,
        "attributes discriminated, %": discriminated.get(EACH),
        "attributes matched, %": obeyed.get(EACH),
        "whole caption matched, %": obeyed.get(WHOLE),
    }


def _judge(page: Page, card: dict[str, Any] | None, folder: Path) -> None:
    page.section("Judge")
    if card is None:
        page.missing("The judge is missing; run python -m probing.testbed.train judge, then judge-card.")
        return
    page.paragraph(
        f"A network of {card['parameters']:,} parameters, trained on {card['training_scenes']:,} renders that no "
        "backbone is trained on, without captions. Accuracy on held-out renders, and how often it detects the one "
        "wrong attribute of a caption and no other:"
    )
    accuracy = {row["attribute"]: format_interval(row, 2) for row in card["clean"]}
    detected = {row["attribute"]: format_interval(row, 2) for row in card["caught"]}
    page.table(
        pd.DataFrame(
            [(name, value, detected.get(name)) for name, value in accuracy.items()],
            columns=["attribute", "accuracy, %", "contradiction detected, %"],
        )
    )
    page.figure(report_figures.judge_under_damage(card), "Accuracy on whole captions of degraded renders, by strength.")
    if (folder / "samples.png").exists():
        page.image_file(
            folder / "samples.png", "Held-out renders, more degraded from row to row; crosses mark detected things"
        )


def _pairs(page: Page, data: PreferenceData, generated: dict[str, Any] | None) -> None:
    page.section("Pairs")
    page.paragraph(
        f"Annotators choose by Bradley–Terry, with odds exp(difference of rewards / {preferences.TEMPERATURE:g}). The "
        f"reward is {preferences.WRONG_ATTRIBUTE:g} for each wrong attribute and {preferences.DAMAGE:g} times the "
        f"strength of degradation."
    )
    prompt_of = data.items.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    for facet, pairs in data.pairs[data.pairs["split"] == "test"].groupby("facet", sort=False):
        page.heading(f"{facet}: the chosen image is on the left")
        groups = []
        for row in pairs.iloc[:_SHOWN].to_dict("records"):
            sides = ("first", "second") if row["choice"] == 1 else ("second", "first")
            rewards = " / ".join(f"{row[f'reward_{side}']:.2f}" for side in sides)
            caption = f"{prompt_of[row['prompt_id']]} ({row['attribute']}; rewards {rewards})"
            groups.append(([data.open_image(row[side]) for side in sides], caption))
        page.image_groups(groups)
    if generated is None:
        page.missing("Generated images are missing; run python -m probing.testbed.train generated.")
        return
    page.paragraph(
        f"{generated['pictures']:,} generated images of {generated['prompts']:,} prompts; means by source model:"
    )
    page.table(
        pd.DataFrame(generated["models"]).rename(
            columns={"source_model": "source model", "n": "images", "wrong": "wrong attributes"}
        )
    )


def _truth(page: Page, data: PreferenceData) -> None:
    page.section("Ceilings")
    page.paragraph("The best possible accuracy is known exactly. The true reward must reach it:")
    page.table(_accuracy_table(truth.truth_check(data)))
    page.paragraph("Test pairs, by attribute:")
    single = data.keep(
        ((data.pairs["split"] == "test") & data.pairs["facet"].isin(["alignment", "quality"])).to_numpy()
    )
    by_attribute = truth.truth_check(single, ("facet", "attribute")).sort_values(["facet", "attribute"])
    page.table(_accuracy_table(by_attribute))


def _shortcut(page: Page, data: PreferenceData) -> None:
    page.section("Planted shortcut")
    page.paragraph(
        "In testbed-shortcut a small mark in the corner is on the chosen image in "
        f"{shortcut.MARKED_CHOSEN['train']:.0%} of training pairs and in {shortcut.MARKED_CHOSEN['test']:.0%} of test "
        "pairs. A probe of the corner's pixels alone is above chance on training pairs and at chance on test pairs. "
        "The true reward ignores the mark."
    )
    rewards = {
        "corner's pixels": corner_rewards(data),
        "true reward": dict(zip(data.items["item_id"], data.items["reward"], strict=True)),
    }
    tables = []
    for name, values in rewards.items():
        whole = truth.accuracy(data, values, ("split",)).assign(mark="on either")
        parts = truth.shortcut_check(data, values)
        parts["mark"] = np.where(parts["marked_chosen"], "on the chosen", "on the rejected")
        tables.append(pd.concat([whole, parts]).assign(reward=name))
    table = pd.concat(tables)[["reward", "split", "mark", "accuracy", "ci_low", "ci_high", "ceiling", "n_pairs"]]
    page.table(_accuracy_table(table))
    marked = data.pairs[data.pairs["split"] == "train"].iloc[:3].to_dict("records")
    page.image_groups(
        [
            ([data.open_image(row["first"]), data.open_image(row["second"])], f"the mark is on the {row['marked']}")
            for row in marked
        ]
    )


def corner_rewards(data: PreferenceData) -> dict[str, float]:
    """Fit a logistic probe to the 8×8 pixels of the marked corner; return the reward of every item."""
    corner = {}
    for item_id in data.items["item_id"]:
        corner[item_id] = np.asarray(data.open_image(item_id))[-8:, -8:].astype(float).ravel() / 255
    train = data.pairs[data.pairs["split"] == "train"]
    differences = np.stack([corner[a] - corner[b] for a, b in zip(train["first"], train["second"], strict=True)])
    probe = LogisticRegression(fit_intercept=False, C=0.05, max_iter=1000).fit(differences, train["choice"])
    return {item_id: float(probe.coef_[0] @ pixels) for item_id, pixels in corner.items()}


def _baseline(page: Page, card: dict[str, Any] | None) -> None:
    page.section("Baseline reward model")
    if card is None:
        page.missing("testbed-rival is missing; run python -m probing.testbed.train rival, then rival-card.")
        return
    page.paragraph(
        f"testbed-rival is an image–text model of {card['parameters']:,} parameters without diffusion, trained from "
        "scratch on the same scenes and then on the training pairs. Accuracy on the test pairs:"
    )
    page.table(_accuracy_table(pd.DataFrame(card["accuracy"])))
    if "agreement" in card:
        page.paragraph("Before training on choices, with the cosine of image and caption as the reward:")
        page.table(_accuracy_table(pd.DataFrame(card["agreement"])))
    page.paragraph("Alignment pairs, by the contradicted attribute:")
    page.table(_accuracy_table(pd.DataFrame(card["by_attribute"])))


def _accuracy_table(table: pd.DataFrame) -> pd.DataFrame:
    text = table.assign(
        accuracy=[format_interval(row) for row in table.to_dict("records")],
        ceiling=[f"{100 * value:.1f}" for value in table["ceiling"]],
        n_pairs=[f"{value:,}" for value in table["n_pairs"]],
    ).drop(columns=["ci_low", "ci_high"])
    return text.rename(columns={"accuracy": "accuracy, %", "ceiling": "ceiling, %", "n_pairs": "pairs"})


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv)


if __name__ == "__main__":
    raise SystemExit(main())
