"""Variance components of rewards under redrawn noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.analysis.engine import Facet, FeatureSource, Fit, Recipe, Site, read_site
from probing.statistics import RESAMPLES, resampled_means, sums_by_group


def score_redraws(
    stores: Sequence[FeatureSource], site: Site, recipe: Recipe, facets: Sequence[Facet], probe: Any
) -> Float[np.ndarray, "draw side pair"]:
    """Score the test items of a facet under each draw of the noise, by one probe.

    Args:
        stores: One store a draw; the probe was fitted on the first.
        site: The site.
        recipe: Recipe of the probe.
        facets: The facet's pairs as rows of each store.
        probe: The fitted probe.
    """
    rewards = [recipe.rewards(probe, read_site(store, site)) for store in stores]
    return np.stack(
        [
            np.stack([of_draw[facet.test.first], of_draw[facet.test.second]])
            for of_draw, facet in zip(rewards, facets, strict=True)
        ]
    )


def variance_ratios(fits: dict[Site, Fit], facet: Facet, seed: int) -> pd.DataFrame:
    """Measure, for each site, the variance of rewards and margins over draws of the noise.

    With r_ik the reward of item i under draw k of K: within = mean_i var_k(r_ik); between = variance over items of the
    mean over draws, less within / K, the noise's part of it (one-way random effects). Their ratio is 0 without an
    effect of the noise, and 1 if the noise changes a reward as much as another item does. The same for margins, with
    their variance over pairs about 0, since which item is first has no meaning. Intervals are by bootstrap over
    prompts.

    Args:
        fits: Fits whose ``scored`` is the result of :func:`score_redraws`.
        facet: The facet.
        seed: Seed of the bootstrap.
    """
    prompts = facet.test.prompts
    rows = []
    for site, fit in fits.items():
        rewards = fit.scored
        draws = len(rewards)
        margins = rewards[:, 0] - rewards[:, 1]
        # All items of a prompt add to the prompt's sums.
        by_pair = {
            "within": rewards.var(axis=0, ddof=1).mean(axis=0),
            "mean": rewards.mean(axis=(0, 1)),
            "square": (rewards.mean(axis=0) ** 2).mean(axis=0),
        }
        by_margin = {"within": margins.var(axis=0, ddof=1), "square": margins.mean(axis=0) ** 2}
        ahead = (margins > 0).sum(axis=0)
        flips = 2 * ahead * (draws - ahead) / (draws * (draws - 1))
        sums, _ = sums_by_group(np.stack([*by_pair.values(), *by_margin.values(), flips], axis=1), prompts)
        estimate, resampled = sums.estimate[None], resampled_means(sums, RESAMPLES, seed)
        for metric in ("reward_ratio", "margin_ratio", "flip_rate"):
            low, high = np.quantile(_measure(metric, resampled, draws), [0.025, 0.975])
            rows.append(
                {
                    **site._asdict(),
                    "kind": "redraw",
                    "metric": metric,
                    "draws": draws,
                    "value": float(_measure(metric, estimate, draws)[0]),
                    "ci_low": float(low),
                    "ci_high": float(high),
                }
            )
    return pd.DataFrame(rows)


def _measure(metric: str, means: np.ndarray, draws: int) -> np.ndarray:
    """Compute a metric from means over pairs: within, mean, square of rewards; within, square of margins; flips."""
    if metric == "reward_ratio":
        return _ratio(means[:, 0], means[:, 2] - means[:, 1] ** 2, draws)
    return _ratio(means[:, 3], means[:, 4], draws) if metric == "margin_ratio" else means[:, 5]


def _ratio(within: np.ndarray, between: np.ndarray, draws: int) -> np.ndarray:
    """Divide the variance over draws by the variance over items; infinite if the draws explain all of it."""
    over_items = between - within / draws
    return np.where(over_items > 0, within / np.where(over_items > 0, over_items, 1.0), np.inf)
