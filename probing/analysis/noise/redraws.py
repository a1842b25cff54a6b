"""Variance components of rewards under redrawn noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.analysis.engine import RESAMPLES, Facet, FeatureSource, Fit, Recipe, Site, read_site
from probing.statistics import resampled_means, sums_by_group


def score_redraws(
    stores: Sequence[FeatureSource], site: Site, recipe: Recipe, facets: Sequence[Facet], probe: Any
) -> Float[np.ndarray, "draw side pair"]:
    """Score the test items of a facet under each draw of the noise, by one probe.

    Args:
        stores: One a draw; the probe was fitted on the first.
        site: Where.
        recipe: Of the probe.
        facets: The facet's pairs as rows of each store.
        probe: Fitted.
    """
    rewards = [recipe.rewards(probe, read_site(store, site)) for store in stores]
    return np.stack(
        [np.stack([own[facet.test.first], own[facet.test.second]]) for own, facet in zip(rewards, facets, strict=True)]
    )


def variance_ratios(fits: dict[Site, Fit], facet: Facet, seed: int) -> pd.DataFrame:
    """Measure, site by site, how much of rewards and margins the draw of the noise moves.

    With r_ik the reward of item i under draw k of K: within = mean_i var_k(r_ik), and over items the variance of the
    mean over draws, less within / K, which is the noise's part of it (one-way random effects). Their ratio is 0 where
    the noise moves nothing and 1 where it moves a reward as much as another item does. Of margins likewise, their
    variance over pairs being about 0, since which side is first means nothing. Intervals are by bootstrap over prompts.

    Args:
        fits: Whose ``scored`` is of :func:`score_redraws`.
        facet: Its test pairs.
        seed: Of the bootstrap.
    """
    prompts = facet.test.prompts
    rows = []
    for site, fit in fits.items():
        rewards = fit.scored
        draws = len(rewards)
        margins = rewards[:, 0] - rewards[:, 1]
        # The items of a prompt add to its sums together, whichever pair they stand in.
        by_pair = {
            "within": rewards.var(axis=0, ddof=1).mean(axis=0),
            "mean": rewards.mean(axis=(0, 1)),
            "square": (rewards.mean(axis=0) ** 2).mean(axis=0),
        }
        by_margin = {"within": margins.var(axis=0, ddof=1), "square": margins.mean(axis=0) ** 2}
        ahead = (margins > 0).sum(axis=0)
        flips = 2 * ahead * (draws - ahead) / (draws * (draws - 1))
        sums, _ = sums_by_group(np.stack([*by_pair.values(), *by_margin.values(), flips], axis=1), prompts)
        estimate, drawn = sums.estimate[None], resampled_means(sums, RESAMPLES, seed, joint=True)
        for metric in ("reward_ratio", "margin_ratio", "flip_rate"):
            low, high = np.quantile(_measure(metric, drawn, draws), [0.025, 0.975])
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
    """Make a metric of the means of what pairs add: within, mean and square of rewards; of margins; flips."""
    if metric == "reward_ratio":
        return _ratio(means[:, 0], means[:, 2] - means[:, 1] ** 2, draws)
    return _ratio(means[:, 3], means[:, 4], draws) if metric == "margin_ratio" else means[:, 5]


def _ratio(within: np.ndarray, between: np.ndarray, draws: int) -> np.ndarray:
    """Divide the noise's variance by the items' own; infinite where the draws explain all that differs."""
    own = between - within / draws
    return np.where(own > 0, within / np.where(own > 0, own, 1.0), np.inf)
