"""Run all checks on one data set."""

from __future__ import annotations

import math

import pandas as pd

from probing.preferences.audit.duplicates import (
    NEAR_BITS,
    across_splits,
    nearly_across_splits,
    same_content,
    splits_of_images,
)
from probing.preferences.audit.findings import Audit, Finding
from probing.preferences.audit.scan import WORKERS, ScannedImages, scan_images
from probing.preferences.audit.shortcuts import Shortcut, by_side, by_size, by_source_model
from probing.preferences.data import SPLITS, PreferenceData
from probing.preferences.splits import crossing_prompts

LEAST_SIDE = 64
"""Length in pixels below which a picture's shorter side is reported."""


def audit(
    data: PreferenceData,
    *,
    images: bool = True,
    workers: int = WORKERS,
    least_side: int = LEAST_SIDE,
    near_bits: int = NEAR_BITS,
    sides_randomized: bool = False,
    seed: int = 0,
) -> Audit:
    """Find what would invalidate a measurement on these data: bad pictures, leaks between splits, shortcuts.

    Args:
        data: Loaded with ``leaks="keep"``; otherwise leaks are removed before they can be found.
        images: Whether to open the pictures; without, only the tables are checked.
        workers: Number of threads that open pictures.
        least_side: Report pictures with a shorter side, in pixels.
        near_bits: Largest number of different bits, 0 to 3, between the perceptual hashes of near duplicates.
        sides_randomized: Whether the reader has randomised the sides, so that the published order is hidden.
        seed: Seed of the folds that measure shortcuts.
    """
    findings = [_prompts(data), _side(data.pairs, sides_randomized), _source_model(data.pairs, seed)]
    if images:
        scanned = scan_images(data, workers=workers)
        findings += [
            *_pictures(scanned, least_side),
            *_duplicates(data, scanned, near_bits),
            _size(data, scanned, seed),
        ]
    counts = data.pairs["split"].value_counts()
    return Audit(
        data=data.name,
        items=len(data.items),
        prompts=data.items["prompt_id"].nunique(),
        pairs={split: int(counts[split]) for split in SPLITS if split in counts},
        findings=findings,
    )


def _prompts(data: PreferenceData) -> Finding:
    """Find prompts in two splits; all spellings of a prompt have one prompt id, see ``from_comparisons``."""
    crossing = crossing_prompts(data.pairs)
    count = data.items["prompt_id"].nunique()
    if len(crossing) == 0:
        return Finding("prompts-across-splits", "ok", f"None of {count:,} prompts is in two splits.")
    pairs = data.pairs[data.pairs["prompt_id"].isin(crossing)]
    cases = pairs.groupby(["prompt_id", "split"]).size().unstack(fill_value=0).reset_index()
    texts = data.items.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"].astype(str)
    cases.insert(1, "prompt", cases["prompt_id"].map(texts))
    statement = (
        f"{len(crossing):,} of {count:,} prompts are in more than one split; --leaks drop keeps their pairs of the "
        f"more held-out split only."
    )
    return Finding("prompts-across-splits", "leak", statement, cases)


def _pictures(scanned: ScannedImages, least_side: int) -> list[Finding]:
    findings = []
    for problem in ("missing", "unreadable"):
        cases = scanned.table.loc[scanned.table["problem"] == problem, ["item_id", "image", "reason"]]
        statement = f"{len(cases):,} of {len(scanned.table):,} pictures are {problem}"
        statement += "; extraction leaves them out with --skip-bad-images." if len(cases) else "."
        findings.append(Finding(f"{problem}-images", "warning" if len(cases) else "ok", statement, cases))
    good = scanned.table[scanned.table["problem"] == ""]
    shorter = good[["width", "height"]].min(axis=1)
    cases = good.loc[shorter < least_side, ["item_id", "image", "width", "height"]]
    statement = f"{len(cases):,} pictures have a side below {least_side} px"
    statement += f"; the shorter sides are {shorter.min()} to {shorter.max()} px." if len(good) else "."
    return [*findings, Finding("tiny-images", "warning" if len(cases) else "ok", statement, cases)]


def _duplicates(data: PreferenceData, scanned: ScannedImages, near_bits: int) -> list[Finding]:
    in_split = splits_of_images(data, scanned.table["image"])
    repeated = same_content(scanned)
    same = across_splits(scanned, in_split)
    near = nearly_across_splits(scanned, in_split, bits=near_bits)
    several = int(in_split.any(axis=0).sum()) > 1
    one_split = "There is only one split."
    return [
        Finding(
            "duplicate-images",
            "note" if len(repeated) else "ok",
            f"{len(repeated):,} pictures have the same pixels as another one.",
            repeated,
        ),
        Finding(
            "images-across-splits",
            "leak" if len(same) else "ok",
            f"{len(same):,} pictures are in a less held-out split too, by name or by pixels." if several else one_split,
            same,
        ),
        Finding(
            "near-images-across-splits",
            "leak" if len(near) else "ok",
            f"{len(near):,} pictures nearly equal one of a less held-out split (perceptual hash within {near_bits} of "
            "64 bits, and similar colours)."
            if several
            else one_split,
            near,
        ),
    ]


def _side(pairs: pd.DataFrame, randomized: bool) -> Finding:
    side = by_side(pairs)
    if math.isnan(side.accuracy):
        return _too_few("choice-by-side", side)
    statement = f"The first picture is chosen in {_interval(side)}"
    statement += (
        "; sides were randomised: the published order may reveal the choice." if randomized else ", as published."
    )
    differs = side.works or side.high < 0.5
    return Finding("choice-by-side", "warning" if differs else "ok", statement, side.table)


def _size(data: PreferenceData, scanned: ScannedImages, seed: int) -> Finding:
    bad = data.items.loc[data.items["image"].isin(scanned.bad["image"]), "item_id"]
    readable = int((~(data.pairs["first"].isin(bad) | data.pairs["second"].isin(bad))).sum())
    if readable == 0:
        return Finding("choice-by-image-size", "note", "No pair has two readable pictures; nothing is measured.")
    size = by_size(data, scanned, seed=seed)
    if size.table["pairs"].sum() == 0:
        statement = "The two pictures of a pair always have the same size"
        statement += (
            "." if readable == len(data.pairs) else f" ({readable:,} of {len(data.pairs):,} pairs can be read)."
        )
        return Finding("choice-by-image-size", "ok", statement)
    return _shortcut("choice-by-image-size", size, "Width and height alone")


def _source_model(pairs: pd.DataFrame, seed: int) -> Finding:
    model = by_source_model(pairs, seed=seed)
    if model is None:
        return Finding("choice-by-source-model", "ok", "The pairs name no source models.")
    return _shortcut("choice-by-source-model", model, "The names of the source models alone")


def _shortcut(check: str, shortcut: Shortcut, what: str) -> Finding:
    if math.isnan(shortcut.accuracy):
        return _too_few(check, shortcut)
    statement = f"{what} predict the choice in {_interval(shortcut)}"
    statement += "; report this with every probe." if shortcut.works else ", not better than chance."
    return Finding(check, "warning" if shortcut.works else "ok", statement, shortcut.table)


def _too_few(check: str, shortcut: Shortcut) -> Finding:
    statement = f"{shortcut.pairs:,} usable untied pairs of {shortcut.prompts:,} prompts are too few to measure this."
    return Finding(check, "note", statement, shortcut.table)


def _interval(shortcut: Shortcut) -> str:
    return (
        f"{100 * shortcut.accuracy:.1f}% [{100 * shortcut.low:.1f}, {100 * shortcut.high:.1f}] of "
        f"{shortcut.pairs:,} pairs"
    )
