"""What changes of blocks do to scores, paired by caption, and how that goes with what can be read there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from probing.analysis.engine import correct
from probing.statistics import RESAMPLES, Difference, mean_change

KEYS = ("facet", "probe", "control", "block", "metric")


def steering_effects(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare pictures steered along a direction with those steered against it.

    The ``effect`` is half the difference of the two, the part that turns with the direction; the ``damage`` is the
    unchanged pictures' score less their mean, the part that any change of that size may have. Seeds of a control are
    averaged by caption. A verdict is on one vector: it moves the score, on these captions. A vector without a meaning
    may do so too, so compare it with the rows of the controls.

    Args:
        scores: Of :func:`probing.analysis.causal.generation.generate`: ``facet, probe, control, seed, block, dose,
            caption, metric, value``, with a dose of 0 for the unchanged backbone, and each dose above 0 with its
            negative.

    Returns:
        One row a facet, probe, control, block, metric and dose: ``effect`` and ``damage``, each with its interval over
        captions; for the effect a p-value, corrected by Holm over the blocks of a facet, probe, control, metric and
        dose.
    """
    plain = scores[scores["dose"] == 0].set_index(["metric", "caption"])["value"]
    steered = scores[scores["dose"] != 0]
    rows = []
    for values, part in steered.groupby([*KEYS, steered["dose"].abs()], sort=False):
        key: dict[str, Any] = dict(zip((*KEYS, "dose"), values, strict=True))
        by_sign = part.assign(sign=np.sign(part["dose"])).pivot_table(index="caption", columns="sign", values="value")
        along, against = by_sign[1.0].to_numpy(), by_sign[-1.0].to_numpy()
        unchanged = plain[key["metric"]].loc[by_sign.index].to_numpy()
        captions = by_sign.index.to_numpy()
        effect = mean_change(along / 2, against / 2, captions)
        damage = mean_change(unchanged, (along + against) / 2, captions)
        rows.append(
            key
            | {"n_prompts": len(captions), "seeds": part["seed"].nunique(), **_row(effect)}
            | {"damage": float(damage.estimate), "damage_low": float(damage.low), "damage_high": float(damage.high)}
        )
    return correct(pd.DataFrame(rows), "effect", by=["facet", "probe", "control", "metric", "dose"])


def dose_responses(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare pictures steered by each dose, above or below 0, with the unchanged ones.

    Args:
        scores: As for :func:`steering_effects`, with any doses.

    Returns:
        One row a facet, probe, control, block, metric and dose: ``change`` with its interval over captions.
    """
    rows = []
    for key, dose, change in _changes(scores):
        rows.append(
            key
            | {"dose": dose, "n_prompts": change["n_prompts"], "change": change["effect"]}
            | {"change_low": change["ci_low"], "change_high": change["ci_high"]}
        )
    return pd.DataFrame(rows)


def erasure_effects(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare pictures made without a subspace with the unchanged ones.

    Args:
        scores: As for :func:`steering_effects`; erased where the dose is 1.

    Returns:
        One row a facet, probe, control, block and metric: ``effect`` with interval, p-value and verdict.
    """
    rows = [key | change for key, _, change in _changes(scores)]
    return correct(pd.DataFrame(rows), "effect", by=["facet", "probe", "control", "metric"])


def _changes(scores: pd.DataFrame) -> Iterator[tuple[dict[str, Any], float, dict[str, Any]]]:
    """Compare each change with the unchanged backbone, caption by caption; seeds of a control are averaged."""
    plain = scores[scores["dose"] == 0].set_index(["metric", "caption"])["value"]
    for values, part in scores[scores["dose"] != 0].groupby([*KEYS, "dose"], sort=False):
        key: dict[str, Any] = dict(zip((*KEYS, "dose"), values, strict=True))
        dose = key.pop("dose")
        changed = part.groupby("caption")["value"].mean()
        unchanged = plain[key["metric"]].loc[changed.index].to_numpy()
        test = mean_change(changed.to_numpy(), unchanged, changed.index.to_numpy())
        row = {"n_prompts": len(changed), "seeds": part["seed"].nunique(), **_row(test)}
        yield key, dose, row


def _row(test: Difference) -> dict[str, float]:
    return {
        "effect": float(test.estimate),
        "ci_low": float(test.low),
        "ci_high": float(test.high),
        "p_value": float(test.p_value),
        "smallest_p_value": float(test.smallest_p_value),
    }


def rank_correlations(
    scores: pd.DataFrame,
    readings: Mapping[str, pd.DataFrame],
    *,
    metric_of: Mapping[str, str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate, over blocks, what can be read with what steering does.

    Spearman's correlation of a block's accuracy on a facet and its effect on the facet's metric. Each resample draws
    test prompts and captions anew, so the interval has the uncertainty of both; it does not have that of other blocks,
    which a backbone has once. A resample adds noise to values that have some already: the interval is wide and lies
    nearer to zero than the estimate.

    Args:
        scores: As for :func:`steering_effects`.
        readings: By facet: outcomes of test pairs, ``prompt_id`` and one column a block.
        metric_of: By facet: the metric that its direction should move.
        resamples: Number of resamples.
        seed: Of the resamples.

    Returns:
        One row a facet, probe, control and dose: ``correlation`` and its interval (percentiles), ``n_blocks``; NaN if
        no block differs from another.
    """
    rows, steered = [], scores[scores["dose"] != 0]
    for labels, part in steered.groupby(["facet", "probe", "control", steered["dose"].abs()], sort=False):
        key: dict[str, Any] = dict(zip(("facet", "probe", "control", "dose"), labels, strict=True))
        reading, metric = readings[key["facet"]], metric_of[key["facet"]]
        blocks = sorted(part["block"].unique())
        signed = part[part["metric"] == metric].assign(half=lambda rows: rows["value"] * np.sign(rows["dose"]) / 2)
        seeds = signed["seed"].nunique()
        effects = signed.pivot_table(index="caption", columns="block", values="half", aggfunc="sum")[blocks] / seeds
        by_prompt = reading.groupby("prompt_id")[blocks].agg(["sum", "count"])
        sums, counts = (by_prompt.xs(name, axis=1, level=1).to_numpy(dtype=float) for name in ("sum", "count"))
        values, rng = effects.to_numpy(), np.random.default_rng(seed)
        drawn = []
        for _ in range(resamples):
            prompts, captions = (rng.integers(len(table), size=len(table)) for table in (sums, values))
            drawn.append(_spearman(sums[prompts].sum(axis=0) / counts[prompts].sum(axis=0), values[captions].mean(0)))
        defined = [value for value in drawn if not np.isnan(value)]
        low, high = np.percentile(defined, [2.5, 97.5]) if defined else (np.nan, np.nan)
        correlation = _spearman(sums.sum(axis=0) / counts.sum(axis=0), values.mean(axis=0))
        rows.append(
            key
            | {"metric": metric, "n_blocks": len(blocks)}
            | {"correlation": correlation, "ci_low": float(low), "ci_high": float(high)}
        )
    return pd.DataFrame(rows)


def _spearman(first: Float[np.ndarray, " block"], second: Float[np.ndarray, " block"]) -> float:
    ranks = rankdata(first), rankdata(second)
    if min(np.ptp(rank) for rank in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
