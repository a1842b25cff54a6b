"""Does low similarity of two blocks predict the gain of the second?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from probing.analysis.combinations.heads import Heads
from probing.analysis.engine import ABOVE, BELOW, OPEN, TOO_LITTLE, Curve, Facet
from probing.analysis.similarity.nearest import nearest_rows
from probing.errors import UserError
from probing.statistics import RESAMPLES, resampled_means, sums_by_group

PERMUTATIONS = 1999
LEAST_BLOCKS = 4
PREDICTS = {
    ABOVE: "pairs of more similar blocks gain more",
    BELOW: "pairs of less similar blocks gain more",
    OPEN: "similarity does not measurably predict the gain of a pair",
    TOO_LITTLE: "too few blocks or prompts to test whether similarity predicts the gain of a pair",
}


def similarity_of(table: pd.DataFrame | None, model: str | None, curve: Curve) -> pd.Series | None:
    """Select the similarities of a curve's blocks.

    Args:
        table: ``block, other, value``, of image tokens if it has no column ``stream``; of several, those of
            :func:`probing.analysis.similarity.nearest.nearest_rows` are selected. None gives None.
        model: Model of the blocks.
        curve: The curve.

    Returns:
        Similarity by (block, other) with block < other; None if the table has none of this curve.

    Raises:
        UserError: The table lacks a column.
    """
    if table is None:
        return None
    missing = {"block", "other", "value"} - set(table)
    if missing:
        raise UserError(f"The table of similarities has no {', '.join(sorted(missing))}; it needs block, other, value.")
    if "stream" not in table and curve.stream != "image":
        return None
    chosen = nearest_rows(table, model=model, stream=curve.stream, reduction=curve.reduction, sigma=curve.sigma)
    if not len(chosen):
        return None
    chosen = chosen[chosen["block"] < chosen["other"]]
    return chosen.groupby(["block", "other"])["value"].mean()


def relate(measured: Heads, similarity: pd.Series, facet: Facet, seed: int) -> pd.DataFrame:
    """Correlate each pair's similarity with its gain over the better of its two blocks (Spearman).

    The interval is by bootstrap over test prompts, which changes the gains but not the similarities. Pairs that share a
    block are not independent, so the p-value is by permuting blocks (Mantel 1967), not pairs.

    Args:
        measured: Heads of a curve.
        similarity: Similarities of :func:`similarity_of`.
        facet: The facet, whose test prompts are resampled.
        seed: Seed of resamples and permutations.

    Returns:
        One row, or none if fewer than four blocks have a similarity; ``statement`` has places for ``{verdict}`` and
        ``{p_value}``.
    """
    pairs = [head for head in measured.of("pair") if head.blocks in similarity.index]
    blocks = sorted({block for head in pairs for block in head.blocks})
    if len(blocks) < LEAST_BLOCKS:
        return pd.DataFrame()
    similarities = similarity.loc[[head.blocks for head in pairs]].to_numpy(dtype=float)
    gain = np.stack([pair.fit.outcomes - measured.better_block(pair).outcomes for pair in pairs], axis=1)
    by_group, _ = sums_by_group(gain, facet.test.prompts)
    value = float(spearman(similarities[None], by_group.estimate[None])[0])
    resampled = resampled_means(by_group, RESAMPLES, seed)
    low, high = np.nanquantile(spearman(np.broadcast_to(similarities, resampled.shape), resampled), [0.025, 0.975])
    p, smallest = _mantel([head.blocks for head in pairs], blocks, similarities, by_group.estimate, seed)
    measured_text = f"Spearman {value:+.2f} [{low:+.2f}, {high:+.2f}] over prompts, {len(pairs)} pairs of blocks"
    return pd.DataFrame(
        [
            {
                "kind": "relation",
                "head": "similarity-gain",
                "metric": "spearman",
                "value": value,
                "ci_low": float(low),
                "ci_high": float(high),
                "p_value": p,
                "smallest_p_value": smallest,
                "statement": f"{{verdict}}: {measured_text}{{p_value}}.",
                "chosen": False,
            }
        ]
    )


def spearman(x: Float[np.ndarray, "row pair"], y: Float[np.ndarray, "row pair"]) -> Float[np.ndarray, " row"]:
    """Return the rank correlation of each row; NaN if all values of a row are equal."""
    ranks = [rankdata(side, axis=1) for side in (x, y)]
    x_ranks, y_ranks = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    length = np.sqrt((x_ranks**2).sum(axis=1) * (y_ranks**2).sum(axis=1))
    return np.divide((x_ranks * y_ranks).sum(axis=1), length, out=np.full(len(length), np.nan), where=length > 0)


def _mantel(
    pairs: list[tuple[int, ...]],
    blocks: list[int],
    similarities: np.ndarray,
    gain: Float[np.ndarray, " pair"],
    seed: int,
) -> tuple[float, float]:
    """Return the two-sided p-value of the correlation under permuted blocks, and the least that any gain could give.

    Few blocks in few groups of similar ones have few distinct orders: six in two stages of three have ten.
    """
    index = {block: number for number, block in enumerate(blocks)}
    rows, columns = np.array([[index[a], index[b]] for a, b in pairs]).T
    matrix = np.full((len(blocks), len(blocks)), np.nan)
    matrix[rows, columns] = matrix[columns, rows] = gain
    observed = abs(spearman(similarities[None], gain[None])[0])
    rng = np.random.default_rng(seed)
    permuted_correlations = np.empty(PERMUTATIONS)
    for number in range(PERMUTATIONS):
        order = rng.permutation(len(blocks))
        permuted = matrix[order[rows], order[columns]]
        finite = np.isfinite(permuted)
        permuted_correlations[number] = abs(spearman(similarities[None, finite], permuted[None, finite])[0])
    largest = max(observed, permuted_correlations.max())
    p_value, smallest = (
        (np.sum(permuted_correlations >= bound - 1e-12) + 1) / (PERMUTATIONS + 1) for bound in (observed, largest)
    )
    return float(p_value), float(smallest)
