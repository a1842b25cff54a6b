"""Trends of accuracy over models: accuracy = a + b·log10(x), with intervals over prompts and residuals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import t as student

from probing.result_tables import over_training
from probing.statistics import resampled_means, sums_by_group

RESAMPLES = 2000
_SAID = {"parameters": "parameters", "forward_flops": "forward FLOPs", "steps": "training steps"}
_KEPT = [
    "model",
    "data",
    "split",
    "facet",
    "stream",
    "reduction",
    "sigma",
    "head",
    "control",
    "probe",
    "seed",
    "metric",
    "n_pairs",
    "n_prompts",
    "n_train_pairs",
]


def trends(rows: pd.DataFrame, outcomes: Float[np.ndarray, "pair row"], prompts: np.ndarray, seed: int) -> pd.DataFrame:
    """Fit every trend that the points allow, and say its residuals.

    Args:
        rows: ``kind`` (points are fitted), ``head``, ``control``, ``config_hash``, ``parameters``, ``forward_flops``,
            ``steps``, ``value``; of one series and facet.
        outcomes: Of the test pairs, a column a row.
        prompts: Of the test pairs.
        seed: Of the bootstrap, whose draws of prompts are the same in all models.

    Returns:
        Rows of kind ``fit`` and ``residual``; none where fewer than two sizes differ.
    """
    made = []
    for head, points in rows[rows["kind"] == "point"].groupby("head", sort=False):
        for series, against, members in _series(points):
            x = np.log10(members[against].to_numpy(dtype=float))
            if len(np.unique(x)) < 2:
                continue
            by_group, _ = sums_by_group(outcomes[:, members.index], prompts)
            estimate = by_group.estimate
            drawn = resampled_means(by_group, RESAMPLES, seed, joint=True)
            slope, intercept = fit_line(x, estimate[None])
            low, high = np.quantile(fit_line(x, drawn)[0], [0.025, 0.975])
            residuals = estimate - intercept - slope * x
            over_models = _over_models(x, slope[0], residuals)
            common = {key: members[key].iloc[0] for key in _KEPT if key != "model"}
            common |= {"head": head, "series": series, "against": against, "n_models": len(x)}
            # With as many models as numbers fitted, nothing is left to deviate.
            spread = np.sqrt((residuals**2).sum() / (len(x) - 2)) if len(x) > 2 else np.nan
            made.append(
                {
                    **common,
                    "kind": "fit",
                    "metric": "slope",
                    "value": float(slope[0]),
                    "ci_low": float(low),
                    "ci_high": float(high),
                    "intercept": float(intercept[0]),
                    "residual_deviation": float(spread),
                    "models_low": over_models[0],
                    "models_high": over_models[1],
                    "statement": _say(series, against, float(slope[0]), (float(low), float(high)), over_models, len(x)),
                }
            )
            for row, residual in zip(members.to_dict("records"), residuals, strict=True):
                made.append(
                    {
                        **common,
                        "kind": "residual",
                        "metric": "residual",
                        "model": row["model"],
                        "store": row["store"],
                        "value": float(residual),
                        "parameters": row["parameters"],
                        "forward_flops": row["forward_flops"],
                        "steps": row["steps"],
                    }
                )
    return pd.DataFrame(made)


def fit_line(
    x: Float[np.ndarray, " model"], y: Float[np.ndarray, "draw model"]
) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
    """Least squares of each row of y on x: slopes and intercepts."""
    away = x - x.mean()
    slope = (y - y.mean(axis=1, keepdims=True)) @ away / (away @ away)
    return slope, y.mean(axis=1) - slope * x.mean()


def _over_models(
    x: Float[np.ndarray, " model"], slope: float, residuals: Float[np.ndarray, " model"]
) -> tuple[float, float]:
    """Student's 95% interval of a least-squares slope; NaN of two models, which leave no residual."""
    free = len(x) - 2
    if free < 1:
        return float("nan"), float("nan")
    error = np.sqrt((residuals**2).sum() / free / ((x - x.mean()) ** 2).sum())
    reach = float(student.ppf(0.975, free) * error)
    return float(slope - reach), float(slope + reach)


def finished(points: pd.DataFrame) -> pd.Series:
    """Tell which trained points stand for their model: of checkpoints those of most steps, one a training seed."""
    checkpoints = points[(points["control"] == "trained") & points["steps"].notna()]
    most = checkpoints.groupby("config_hash", dropna=False)["steps"].transform("max")
    return points["steps"].isna() | points.index.isin(checkpoints.index[checkpoints["steps"] == most])


def _series(points: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield (series, against, its points): models by size, checkpoints by steps."""
    trained = points[points["control"] == "trained"]
    for against in ("parameters", "forward_flops"):
        yield "trained", against, trained[finished(trained)]
        yield "random-init", against, points[points["control"] == "random-init"]
    for _, part in over_training(points).groupby("config_hash", dropna=False):
        sizes = part["parameters"].iloc[0]
        yield f"checkpoints of {sizes:.3g} parameters", "steps", part


def _say(
    series: str, against: str, slope: float, prompts: tuple[float, float], models: tuple[float, float], count: int
) -> str:
    """Say of these models what the interval over prompts allows, and of others what the one over models does."""
    low, high = prompts
    if low > 0:
        verdict = "rises with"
    elif high < 0:
        verdict = "falls with"
    else:
        verdict = "is not measurably related to"
    said = (
        f"{series}: among these {count} models accuracy {verdict} {_SAID[against]}, {100 * slope:+.1f} points a tenfold"
    )
    said += f" [{100 * low:+.1f}, {100 * high:+.1f}] over prompts; "
    if count < 3:
        return f"{said}two models say nothing of others."
    reached = f"[{100 * models[0]:+.1f}, {100 * models[1]:+.1f}] over models"
    return said + (f"not distinguished from 0, {reached}." if models[0] <= 0 <= models[1] else f"{reached}.")
