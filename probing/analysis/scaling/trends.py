"""Trends over sizes and training steps: accuracy = a + b·log10(x), with intervals over prompts and sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import t as student

from probing.analysis.engine import ABOVE, BELOW, OPEN, TOO_LITTLE, column_names, format_p_value
from probing.result_tables import over_training
from probing.statistics import mean_interval, sign_flip_p_value, sums_by_group

CONTRAST = "trained less random-init"
_LABELS = {"parameters": "parameters", "forward_flops": "forward FLOPs", "steps": "training steps"}
_WORDS = {
    ABOVE: "rises with",
    BELOW: "falls with",
    OPEN: "is not measurably related to",
    TOO_LITTLE: "cannot be related, on so few prompts, to",
}
_COMMON = column_names(
    "data split facet stream reduction sigma head probe seed metric n_pairs n_prompts n_train_pairs",
    with_provenance=False,
)


@dataclass(frozen=True)
class _Line:
    """A least-squares line through one point a size; a size is the mean of its trainings.

    Attributes:
        x: Logarithm of each size.
        weights: Weight of each row of outcomes in each size.
    """

    x: Float[np.ndarray, " size"]
    weights: Float[np.ndarray, "row size"]

    @property
    def slope(self) -> Float[np.ndarray, " size"]:
        """Weights of the sizes in the slope."""
        centred = self.x - self.x.mean()
        slope: Float[np.ndarray, " size"] = centred / (centred @ centred)
        return slope


def trends(rows: pd.DataFrame, outcomes: Float[np.ndarray, "pair row"], prompts: np.ndarray) -> pd.DataFrame:
    """Fit every trend that the points allow, with its residuals.

    A slope is a weighted sum of accuracies on the same pairs, so its interval and its p-value over prompts are those of
    a mean over pairs: of each pair's weighted outcomes. Trainings of one size are averaged before the fit. With three
    sizes or more a second interval, by Student's t on the residuals of the sizes, is for other sizes and trainings; it
    is not corrected, and no verdict rests on it. The points of one training have none.

    Args:
        rows: ``kind`` (points are fitted), ``head``, ``control``, ``config_hash``, ``parameters``, ``forward_flops``,
            ``steps``, ``value``, ``pipeline`` where it is known; of one curve and facet.
        outcomes: Outcomes of the test pairs, one column for each row.
        prompts: Prompts of the test pairs.

    Returns:
        Rows of kind ``fit`` and ``residual``; none for fewer than two different sizes.
    """
    fits: list[dict[str, Any]] = []
    for head, points in rows[rows["kind"] == "point"].groupby("head", sort=False):
        for series, against, members, signs in _series(points):
            line = _line(members, against, signs)
            if line is None:
                continue
            by_size = outcomes[:, members.index] @ line.weights
            slope = line.slope
            of_pairs = by_size @ slope
            interval = mean_interval(of_pairs, prompts)
            sums, _ = sums_by_group(of_pairs, prompts)
            differ = int((np.abs(sums.sums[:, 0]) > 1e-12).sum())
            estimate = np.nanmean(by_size, axis=0)
            intercept = float(estimate.mean() - float(interval.estimate) * line.x.mean())
            residuals = estimate - intercept - float(interval.estimate) * line.x
            over_sizes = (float("nan"),) * 2
            if against != "steps":
                over_sizes = _over_sizes(line.x, float(interval.estimate), residuals)
            common = {key: members[key].iloc[0] for key in _COMMON}
            common |= {"head": head, "series": series, "against": against, "n_models": len(members)}
            common |= {
                "n_sizes": len(line.x),
                "control": "trained" if series == CONTRAST else members["control"].iloc[0],
            }
            # A line through two sizes leaves no residuals.
            spread = np.sqrt((residuals**2).sum() / (len(line.x) - 2)) if len(line.x) > 2 else np.nan
            fits.append(
                {
                    **common,
                    "kind": "fit",
                    "metric": "slope",
                    "value": float(interval.estimate),
                    "ci_low": float(interval.low),
                    "ci_high": float(interval.high),
                    "p_value": sign_flip_p_value(sums.sums[:, 0]),
                    "smallest_p_value": 0.5 ** max(differ - 1, 0),
                    "intercept": intercept,
                    "residual_deviation": float(spread),
                    "sizes_low": over_sizes[0],
                    "sizes_high": over_sizes[1],
                }
            )
            for x, residual in zip(line.x, residuals, strict=True):
                fits.append(
                    {
                        **common,
                        "kind": "residual",
                        "metric": "residual",
                        "value": float(residual),
                        against: float(10**x),
                    }
                )
    return pd.DataFrame(fits)


def _line(members: pd.DataFrame, against: str, signs: Float[np.ndarray, " row"]) -> _Line | None:
    """Return the line's sizes; None for fewer than two. With two signs, only sizes that have both are used."""
    x = np.log10(members[against].to_numpy(dtype=float))
    sizes = [size for size in np.unique(x) if all(((x == size) & (signs == sign)).any() for sign in np.unique(signs))]
    if len(sizes) < 2:
        return None
    weights = np.zeros((len(members), len(sizes)))
    for column, size in enumerate(sizes):
        for sign in np.unique(signs):
            at = (x == size) & (signs == sign)
            weights[at, column] = sign / at.sum()
    return _Line(np.array(sizes), weights)


def _over_sizes(
    x: Float[np.ndarray, " size"], slope: float, residuals: Float[np.ndarray, " size"]
) -> tuple[float, float]:
    """Return Student's 95% interval of a least-squares slope; NaN for two sizes, which leave no residual."""
    degrees = len(x) - 2
    if degrees < 1:
        return float("nan"), float("nan")
    error = np.sqrt((residuals**2).sum() / degrees / ((x - x.mean()) ** 2).sum())
    half_width = float(student.ppf(0.975, degrees) * error)
    return float(slope - half_width), float(slope + half_width)


def finished(points: pd.DataFrame) -> pd.Series:
    """Return the mask of points that represent their model: among checkpoints those of most steps, one a seed."""
    checkpoints = points[(points["control"] == "trained") & points["steps"].notna()]
    most = checkpoints.groupby("config_hash", dropna=False)["steps"].transform("max")
    return points["steps"].isna() | points.index.isin(checkpoints.index[checkpoints["steps"] == most])


def _series(points: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame, Float[np.ndarray, " row"]]]:
    """Yield (series, against, points of the trend, their signs): models by size, all and by family; one training."""
    trained = points[points["control"] == "trained"]
    trained = trained[finished(trained)]
    random_init = points[points["control"] == "random-init"]
    families = {str(name): part for name, part in trained.groupby("pipeline")} if "pipeline" in trained else {}
    for against in ("parameters", "forward_flops"):
        yield "trained", against, trained, np.ones(len(trained))
        for name, part in families.items() if len(families) > 1 else ():
            yield f"trained, {name}", against, part, np.ones(len(part))
        if len(random_init):
            yield "random-init", against, random_init, np.ones(len(random_init))
            both = pd.concat([trained, random_init])
            yield CONTRAST, against, both, np.where(both["control"] == "trained", 1.0, -1.0)
    for _, part in over_training(points).groupby("config_hash", dropna=False):
        sizes = part["parameters"].iloc[0]
        yield f"training of {sizes:.3g} parameters", "steps", part, np.ones(len(part))


def statement(row: Mapping[Any, Any]) -> str:
    """State the verdict among these models, and the interval for other sizes and trainings beside it."""
    slope, low, high = (100 * row[name] for name in ("value", "ci_low", "ci_high"))
    measured = f"{slope:+.1f} points a tenfold [{low:+.1f}, {high:+.1f}] over prompts"
    p_value = format_p_value(row["verdict"], row["p_value_holm"])
    relation = f"{_WORDS[row['verdict']]} {_LABELS[row['against']]}, {measured}{p_value}"
    where = f"{row['facet']}, {row['stream']} at σ = {row['sigma']:g}, {row['head']}: "
    if row["against"] == "steps":
        return f"{where}over the {row['series']} ({row['n_models']:.0f} steps of one run) accuracy {relation}."
    other = f"[{100 * row['sizes_low']:+.1f}, {100 * row['sizes_high']:+.1f}] over sizes, uncorrected"
    if row["n_sizes"] < 3:
        other = "two sizes say nothing of others"
    what = "the accuracy of trained less random weights" if row["series"] == CONTRAST else f"{row['series']} accuracy"
    return f"{where}among these {row['n_models']:.0f} models of {row['n_sizes']:.0f} sizes {what} {relation}; {other}."
