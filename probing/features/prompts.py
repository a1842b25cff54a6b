"""Choose the words that a backbone reads with an image: its own prompt, another prompt, or none."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from probing.errors import UserError

PROMPT_RULES = ("own", "foreign", "empty")


def given_prompts(items: pd.DataFrame, pairs: pd.DataFrame, rule: str, seed: int) -> list[str]:
    """Return the words that the backbone reads with each item.

    ``own`` gives the item's prompt, ``empty`` the empty text. ``foreign`` gives another prompt of the same split: the
    prompts of a split form a ring in random order, and each prompt group gets the words of the next. So no group keeps
    its own words, both items of a pair get the same, and no training item gets words of a test prompt.

    Args:
        items: ``prompt_id`` and ``prompt`` of each item.
        pairs: ``prompt_id`` and ``split``; a prompt in several splits belongs to the first.
        rule: Of :data:`PROMPT_RULES`.
        seed: Seed of the ring, which depends on the set of prompts, not on their order.

    Raises:
        UserError: Unknown rule, or a split with a single prompt.
    """
    if rule not in PROMPT_RULES:
        raise UserError(f"Unknown rule of prompts {rule!r}; known are {', '.join(PROMPT_RULES)}.")
    if rule == "own":
        return items["prompt"].tolist()
    if rule == "empty":
        return [""] * len(items)
    text_of = items.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    split_of = pairs.drop_duplicates("prompt_id").set_index("prompt_id")["split"]
    words: dict[str, str] = {}
    for split, prompts in text_of.index.to_series().groupby(text_of.index.map(split_of.to_dict()).fillna("")):
        ring = sorted(prompts, key=lambda prompt: hashlib.blake2b(f"{seed}\x1f{prompt}".encode()).digest())
        if len(ring) < 2:
            raise UserError(
                f"Split {split!r} has 1 prompt, so it cannot be given another's words; "
                f"extract more items, or give --prompts empty."
            )
        words |= dict(zip(ring, text_of.loc[np.roll(ring, -1)], strict=True))
    return items["prompt_id"].map(words).tolist()
