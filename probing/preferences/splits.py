"""Train/test splits that keep prompt groups whole: by prompt, in strata, or by source model."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from probing.errors import UserError
from probing.preferences.data import SPLITS, PreferenceData
from probing.preferences.rules import SPLIT_RULES, SplitRule

TEST_FRACTION = 0.2


def normalise_prompt(text: str) -> str:
    """Normalise a prompt for comparisons: NFKC, casefolded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold()


def split_by_prompt(
    prompts: pd.Series, *, strata: pd.Series | None = None, test_fraction: float = TEST_FRACTION, seed: int = 0
) -> pd.Series:
    """Assign each row ``train`` or ``test`` by its prompt.

    Args:
        prompts: The prompt's id of each row.
        strata: The stratum of each row, such as its facet; prompts with the same set of strata are split alike.
        test_fraction: Share of prompts that become the test split, in each set of strata.
        seed: Seed of the assignment.

    Raises:
        UserError: Fewer than two prompts, or a fraction outside (0, 1).
    """
    if not 0 < test_fraction < 1:
        raise UserError(f"The test fraction must be between 0 and 1, got {test_fraction}.")
    code, names = pd.factorize(prompts)
    if len(names) < 2:
        raise UserError(f"A split by prompt needs at least 2 different prompts, got {len(names)}; add a split column.")
    _, position = _positions_in_strata(code, names, strata, seed)
    tests = position < test_fraction
    if not tests.any() or tests.all():
        tests = np.arange(len(names)) == int(np.argmin(position))
    return pd.Series(np.where(tests[code], "test", "train"), index=prompts.index)


def stratified_folds(prompts: pd.Series, folds: int, *, strata: pd.Series | None = None, seed: int = 0) -> np.ndarray:
    """Return the fold that holds out each row; prompts of the same strata are distributed evenly.

    Args:
        prompts: The prompt's id of each row.
        folds: Number of folds.
        strata: The stratum of each row, such as its facet or source model.
        seed: Seed of the assignment.

    Raises:
        UserError: Fewer prompts than folds, or fewer than two folds.
    """
    code, names = pd.factorize(prompts)
    if not 2 <= folds <= len(names):
        raise UserError(f"Got {folds} folds for {len(names)} prompts; give 2 to {len(names)} folds.")
    kind, position = _positions_in_strata(code, names, strata, seed)
    # Sorted by kind, each in random order: assigning in turn balances every kind, and all of them together.
    order = np.lexsort((position, kind))
    fold_of = np.empty(len(names), dtype=np.int64)
    fold_of[order] = np.arange(len(names)) % folds
    return fold_of[code]


def hold_out_models(pairs: pd.DataFrame, models: Sequence[str], *, seed: int = 0) -> pd.DataFrame:
    """Train on pairs without some source models, test on pairs with one of them, on other prompts.

    A probe that relies on the source models of its training pairs fails here. An official split by prompt is kept;
    without a test split, prompts are split 80 to 20.

    Args:
        pairs: Pairs with ``source_model_first`` and ``source_model_second``.
        models: The models to hold out.
        seed: Seed of the split by prompt, if there is no official one.

    Returns:
        The pairs of the new splits ``train`` and ``test``, without training prompts' pairs of held-out models and test
        prompts' pairs of the others.

    Raises:
        UserError: The pairs name no source models, or not a given one, or a split would be empty.
    """
    model_columns = ("source_model_first", "source_model_second")
    if any(column not in pairs for column in model_columns):
        raise UserError(
            "These pairs name no source models; a split by source model needs source_model_first, …_second."
        )
    counts = pd.concat([pairs[column] for column in model_columns]).value_counts()
    unknown = [model for model in models if model not in counts.index]
    if unknown or not models:
        have = ", ".join(f"{model} ({count:,})" for model, count in counts.items())
        raise UserError(f"Got the source models {', '.join(unknown) or 'none'} to hold out; these pairs have {have}.")
    split = pairs["split"]
    if "test" not in set(split) or "train" not in set(split):
        split = split_by_prompt(pairs["prompt_id"], seed=seed)
    held_out = pairs[model_columns[0]].isin(models) | pairs[model_columns[1]].isin(models)
    kept = ((split == "train") & ~held_out) | ((split == "test") & held_out)
    result = pairs[kept].assign(split=split[kept]).reset_index(drop=True)
    for name, preposition in (("train", "without"), ("test", "with")):
        if not (result["split"] == name).any():
            raise UserError(f"No {name} pair {preposition} {', '.join(models)} is left; hold out other source models.")
    return result


def split_pairs(
    pairs: pd.DataFrame,
    split_by: SplitRule = "official",
    *,
    stratify: str | None = None,
    held_out: Sequence[str] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """Split pairs into training and test pairs that share no prompt.

    Args:
        pairs: A table of pairs.
        split_by: ``official`` (unchanged), ``prompt`` (80 to 20), or ``source-model``.
        stratify: With ``prompt``: a column whose values are distributed alike in both splits.
        held_out: With ``source-model``: the models to hold out; see :func:`hold_out_models`.
        seed: Seed of the split.

    Raises:
        UserError: Unknown rule or column, or what the rule refuses.
    """
    if split_by not in SPLIT_RULES:
        raise UserError(f"Unknown split rule {split_by!r}; give one of {', '.join(SPLIT_RULES)}.")
    if (held_out and split_by != "source-model") or (stratify and split_by != "prompt"):
        raise UserError(
            "Held-out source models need the split rule source-model, and strata need the rule prompt; change the rule."
        )
    if split_by == "source-model":
        return hold_out_models(pairs, held_out, seed=seed)
    if split_by == "official":
        return pairs
    if stratify is not None and stratify not in pairs:
        raise UserError(
            f"The pairs have no column {stratify!r} to stratify by; they have {', '.join(map(str, pairs))}."
        )
    strata = None if stratify is None else pairs[stratify]
    return pairs.assign(split=split_by_prompt(pairs["prompt_id"], strata=strata, seed=seed))


def crossing_prompts(pairs: pd.DataFrame) -> pd.Series:
    """List the ids of prompts in more than one split."""
    different = pairs[["prompt_id", "split"]].drop_duplicates()
    return different.loc[different["prompt_id"].duplicated(), "prompt_id"].drop_duplicates()


def refuse_crossing_prompts(data: PreferenceData) -> None:
    """Refuse data in which a prompt, whatever its spelling, is in two splits.

    Raises:
        UserError: The message has the number of such prompts, and the first.
    """
    crossing = crossing_prompts(data.pairs)
    if len(crossing):
        first = data.items.loc[data.items["prompt_id"] == crossing.iloc[0], "prompt"].iloc[0]
        raise UserError(
            f"{len(crossing):,} prompts of {data.name} are in more than one split, the first being {first!r}; "
            f"--leaks drop leaves out their pairs of the less held-out splits."
        )


def drop_crossing_prompts(data: PreferenceData) -> PreferenceData:
    """Keep each prompt only in the most held-out of its splits: test, then validation."""
    rank = data.pairs["split"].map({split: i for i, split in enumerate(SPLITS)}).astype(int)
    keep = (rank == rank.groupby(data.pairs["prompt_id"]).transform("max")).to_numpy()
    if keep.all():
        return data
    dropped = int((~keep).sum())
    return replace(data.keep(keep), settings={**data.settings, "dropped_crossing_pairs": dropped})


def _positions_in_strata(
    code: np.ndarray, names: pd.Index, strata: pd.Series | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return each prompt's kind, and its random position in [0, 1), evenly spaced among the prompts of its kind.

    Prompts are of one kind if their rows have the same set of strata.
    """
    # Sorted by name, so that the order of rows does not matter.
    order = np.argsort(names.astype(str).to_numpy(dtype=object), kind="stable")
    random_rank = np.empty(len(names))
    random_rank[order] = np.random.default_rng(seed).permutation(len(names))
    kind = np.zeros(len(names), dtype=np.int64)
    if strata is not None:
        what, _ = pd.factorize(strata.astype(str), sort=True)
        pairs = pd.DataFrame({"prompt": code, "what": what}).drop_duplicates().sort_values(["prompt", "what"])
        kinds = pairs.groupby("prompt")["what"].agg(tuple)
        kind[kinds.index.to_numpy()] = pd.factorize(kinds, sort=True)[0]
    position = np.empty(len(names))
    for one in np.unique(kind):
        of_kind = np.flatnonzero(kind == one)
        rank = np.argsort(np.argsort(random_rank[of_kind], kind="stable"), kind="stable")
        position[of_kind] = (rank + 0.5) / len(of_kind)
    return kind, position
