"""Splits that never cut a prompt: the same words are the same prompt, whatever their id."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pandas as pd

from probing.errors import UserError

TEST_FRACTION = 0.2


def normalise_prompt(text: str) -> str:
    """Bring a prompt to the form in which two prompts are the same: NFKC, casefolded, single spaces."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()


def split_by_prompt(prompts: pd.Series, *, test_fraction: float = TEST_FRACTION, seed: int = 0) -> pd.Series:
    """Assign each row ``train`` or ``test`` by its prompt's words.

    Args:
        prompts: One text a row.
        test_fraction: Share of different prompts that become the test split.
        seed: Of the assignment.

    Raises:
        UserError: Fewer than two different prompts.
    """
    different = {text: normalise_prompt(text) for text in prompts.unique()}
    names = sorted(set(different.values()))
    if len(names) < 2:
        raise UserError(f"A split by prompt needs at least 2 different prompts, got {len(names)}; add a split column.")
    tests = min(max(1, round(test_fraction * len(names))), len(names) - 1)
    chosen = set(np.random.default_rng(seed).permutation(names)[:tests].tolist())
    return prompts.map(different).isin(chosen).map({True: "test", False: "train"})


def check_no_prompt_crosses(prompts: pd.Series, splits: pd.Series, *, mend: str) -> None:
    """Raise if one prompt's words stand in two splits.

    Args:
        prompts: One text a row.
        splits: The split of each row.
        mend: What the user can do about it; ends the message.

    Raises:
        UserError: With the first such prompt, and how many there are.
    """
    table = pd.DataFrame({"prompt": prompts.map({t: normalise_prompt(t) for t in prompts.unique()}), "split": splits})
    crossing = table.drop_duplicates().groupby("prompt", sort=False)["split"].nunique()
    crossing = crossing[crossing > 1]
    if len(crossing):
        raise UserError(
            f"{len(crossing)} prompts stand in more than one split, the first being {crossing.index[0]!r}; {mend}."
        )
