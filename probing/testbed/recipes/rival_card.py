"""The rival's card: how often its reward agrees with the annotators, before and after it heard of their choices."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probing.preferences import PreferenceData
from probing.testbed import preferences, truth
from probing.testbed.recipes import rival as recipe
from probing.testbed.rival import WEIGHTS, Rival, score_items


def run(runs: Path, weights: Path = WEIGHTS, *, data: PreferenceData | None = None) -> Path:
    """Measure the saved rival on test pairs, write ``card.json`` and ``README.md`` beside it."""
    data = (data or preferences.load()).select(split="test")
    rival = Rival.load(weights)
    measured: dict[str, Any] = {
        "parameters": sum(p.numel() for p in rival.network.parameters()),
        "bytes": weights.stat().st_size,
        "schedules": {"contrast": asdict(recipe.CONTRAST), "choices": asdict(recipe.CHOICES)},
        **_accuracies(data, rival.rewards),
    }
    contrasted = runs / recipe.CONTRASTED
    if contrasted.exists():
        measured["agreement"] = _accuracies(data, Rival.load(contrasted).agreement)["accuracy"]
    (weights.parent / "card.json").write_text(json.dumps(measured, indent=1) + "\n")
    card = weights.parent / "README.md"
    card.write_text(_text(measured))
    return card


def _accuracies(data: PreferenceData, score) -> dict[str, Any]:
    scored = score_items(data, score)
    rewards = dict(zip(scored["item_id"], scored["reward"], strict=True))
    one = data.keep((data.pairs["facet"] == "alignment").to_numpy())
    return {
        "accuracy": truth.accuracy(data, rewards).to_dict("records"),
        "by_attribute": truth.accuracy(one, rewards, ("split", "facet", "attribute")).to_dict("records"),
    }


def _row(row: dict[str, Any], name: str) -> str:
    low, high = 100 * row["ci_low"], 100 * row["ci_high"]
    return f"| {row[name]} | {100 * row['accuracy']:.1f} [{low:.1f}, {high:.1f}] | {100 * row['ceiling']:.1f} | {row['n_pairs']:,} |"


def _text(measured: dict[str, Any]) -> str:
    def table(rows: list[dict[str, Any]], name: str) -> str:
        return "\n".join(
            [f"| {name} | accuracy | ceiling | pairs |", "|---|---|---|---|", *(_row(r, name) for r in rows)]
        )

    before = ""
    if "agreement" in measured:
        before = f"""
Before it heard of any choice, by the agreement of picture and caption alone:

{table(measured["agreement"], "facet")}
"""
    return f"""# The rival

An image–text model of {measured["parameters"]:,} parameters ({measured["bytes"] / 1e6:.1f} MB, float16): the testbed's
counterpart of CLIP-based rewards. Its two towers were trained from nothing on the scenes that the backbones were trained
on, picture against caption, with contradicting captions among the wrong ones; then all of it on the training pairs of
`testbed`, every facet, by Bradley–Terry, while it still matches captions. The pairs are few: after more steps than these
it knows its training pairs better and others worse, as 100 training prompts held out in trials suggested.

```
python -m probing.testbed.rival --output scores.csv
python -m probing.score --data testbed --scores scores.csv
```

Percent of test pairs in which the chosen picture has the larger reward, 95% interval over prompts; the ceiling is what
the true reward reaches:

{table(measured["accuracy"], "facet")}

Of alignment, by what is wrong:

{table(measured["by_attribute"], "attribute")}
{before}
## Limits

As other models that were trained by contrast, it hears which things and colours a caption names, and hardly how they
stand to each other. Of quality it knows what the training pairs of choices taught it, which is little.

`python -m probing.testbed.train rival`, then `rival-card`. Schedules:

```json
{json.dumps(measured["schedules"], indent=1)}
```
"""
