"""The card of a kept reward; every number comes from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probing.reward.manifest import Manifest


def write_card(manifest: Manifest, described: Mapping[str, Any]) -> str:
    """Return the card as Markdown."""
    backbone, training, extraction = manifest.backbone, manifest.training, manifest.extraction
    sites = "\n".join(f"- `{site}`" for site in manifest.sites)
    rows = "\n".join(
        f"| {row['facet']} | {row['rule']} | {100 * row['value']:.1f} [{100 * row['ci_low']:.1f}, "
        f"{100 * row['ci_high']:.1f}] | {row['n_pairs']:,} of {row['n_prompts']:,} prompts |"
        for row in manifest.accuracies
    )
    quantiles = ", ".join(f"{100 * float(q):g}%: {value:.2f}" for q, value in manifest.quantiles.items())
    weights = "random-initialised weights" if backbone.random_init else "trained weights"
    preset = f"\nPreset: {manifest.preset}\n" if manifest.preset else ""
    return f"""---
library_name: dit-probing
tags: [reward-model, text-to-image]
---
# A reward of `{backbone.name}`

A {described["class"]} on frozen features of `{backbone.name}` ({weights}, revision `{backbone.revision}`).
Made by dit-probing {manifest.versions.get("dit-probing", "")}; load it with `probing.LatentReward.load`.
{preset}
## Score

Higher is better. The difference of two scores is the log odds that people choose the first picture of one prompt:
`p = 1 / (1 + exp(second - first))`. The scale has no ends; 0 is the mean of the training items, whose scores are
{quantiles}.

## Where it reads

{sites}

Pictures of {extraction["resolution"]}² ({extraction["resize"]}); noise seed {extraction["seed"]}.

## Training

Pairs of `{training["data"]}`, facet `{training["facet"]}`: {training["n_pairs"]:,} of {training["n_prompts"]:,}
prompts; data fingerprint `{training["data_fingerprint"]}`, feature store `{training["store_digest"]}`.

## Accuracy on held-out pairs, with 95% intervals over prompts

| facet | rule | % | pairs |
|---|---|---|---|
{rows}
"""
