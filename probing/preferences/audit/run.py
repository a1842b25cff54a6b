"""All checks on one data set."""

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
from probing.preferences.audit.pictures import WORKERS, ScannedImages, scan_images
from probing.preferences.audit.shortcuts import Shortcut, by_place, by_size, by_source_model
from probing.preferences.data import SPLITS, PreferenceData
from probing.preferences.splits import crossing_prompts

LEAST_SIDE = 64
"""Pictures with a shorter side, in pixels, are called tiny."""


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
    """Look for what would spoil a measurement on these data.

    Args:
        data: Loaded with ``leaks="keep"``, or there are none to be found.
        images: Whether to open the pictures; without, only the tables are looked at.
        workers: Threads that open pictures.
        least_side: Pictures with a shorter side, in pixels, are called tiny.
        near_bits: Bits, 0 to 3, in which the perceptual hashes of near duplicates may differ.
        sides_randomized: Whether the reader drew the places, so that they tell nothing of the publisher's order.
        seed: Of the folds by which shortcuts are measured.
    """
    findings = [_prompts(data), _place(data.pairs, sides_randomized), _source_model(data.pairs, seed)]
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
    """Equal words have one prompt id, whatever their spelling: see ``from_comparisons``."""
    crossing = crossing_prompts(data.pairs)
    count = data.items["prompt_id"].nunique()
    if len(crossing) == 0:
        return Finding("prompts-across-splits", "ok", f"None of {count:,} prompts stands in two splits.")
    pairs = data.pairs[data.pairs["prompt_id"].isin(crossing)]
    cases = pairs.groupby(["prompt_id", "split"]).size().unstack(fill_value=0).reset_index()
    texts = data.items.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"].astype(str)
    cases.insert(1, "prompt", cases["prompt_id"].map(texts))
    said = f"{len(crossing):,} of {count:,} prompts stand in more than one split; --leaks drop keeps the held-out side."
    return Finding("prompts-across-splits", "leak", said, cases)


def _pictures(scanned: ScannedImages, least_side: int) -> list[Finding]:
    findings = []
    for problem in ("missing", "unreadable"):
        cases = scanned.table.loc[scanned.table["problem"] == problem, ["item_id", "image", "reason"]]
        said = f"{len(cases):,} of {len(scanned.table):,} pictures are {problem}"
        said += "; extraction leaves them out with --skip-bad-images." if len(cases) else "."
        findings.append(Finding(f"{problem}-images", "warning" if len(cases) else "ok", said, cases))
    good = scanned.table[scanned.table["problem"] == ""]
    shorter = good[["width", "height"]].min(axis=1)
    cases = good.loc[shorter < least_side, ["item_id", "image", "width", "height"]]
    said = f"{len(cases):,} pictures have a side below {least_side} px"
    said += f"; the shorter sides go from {shorter.min()} to {shorter.max()} px." if len(good) else "."
    return [*findings, Finding("tiny-images", "warning" if len(cases) else "ok", said, cases)]


def _duplicates(data: PreferenceData, scanned: ScannedImages, near_bits: int) -> list[Finding]:
    there = splits_of_images(data, scanned.table["image"])
    again = same_content(scanned)
    same = across_splits(scanned, there)
    near = nearly_across_splits(scanned, there, bits=near_bits)
    several = int((there.any(axis=0)).sum()) > 1
    once = "There is one split only; nothing can cross."
    return [
        Finding(
            "duplicate-images",
            "note" if len(again) else "ok",
            f"{len(again):,} pictures have the same pixels as another one.",
            again,
        ),
        Finding(
            "images-across-splits",
            "leak" if len(same) else "ok",
            f"{len(same):,} pictures are in a less held-out split too, by name or by pixels." if several else once,
            same,
        ),
        Finding(
            "near-images-across-splits",
            "leak" if len(near) else "ok",
            f"{len(near):,} pictures look nearly like one of a less held-out split (perceptual hash within {near_bits} "
            "of 64 bits, and alike in colour)."
            if several
            else once,
            near,
        ),
    ]


def _place(pairs: pd.DataFrame, drawn: bool) -> Finding:
    place = by_place(pairs)
    if math.isnan(place.accuracy):
        return _too_few("choice-by-place", place)
    said = f"The first of two is chosen in {_interval(place)}"
    said += "; places were drawn here, for the published order may tell the choice." if drawn else ", as published."
    off = place.works or place.high < 0.5
    return Finding("choice-by-place", "warning" if off else "ok", said, place.table)


def _size(data: PreferenceData, scanned: ScannedImages, seed: int) -> Finding:
    bad = data.items.loc[data.items["image"].isin(scanned.bad["image"]), "item_id"]
    readable = int((~(data.pairs["first"].isin(bad) | data.pairs["second"].isin(bad))).sum())
    if readable == 0:
        return Finding("choice-by-image-size", "note", "No pair has two readable pictures; nothing is measured.")
    size = by_size(data, scanned, seed=seed)
    if size.table["pairs"].sum() == 0:
        said = "The two pictures of a pair always have the same size"
        said += "." if readable == len(data.pairs) else f" ({readable:,} of {len(data.pairs):,} pairs can be read)."
        return Finding("choice-by-image-size", "ok", said)
    return _shortcut("choice-by-image-size", size, "Width and height alone")


def _source_model(pairs: pd.DataFrame, seed: int) -> Finding:
    model = by_source_model(pairs, seed=seed)
    if model is None:
        return Finding("choice-by-source-model", "ok", "No source models are named.")
    return _shortcut("choice-by-source-model", model, "The names of the source models alone")


def _shortcut(check: str, shortcut: Shortcut, what: str) -> Finding:
    if math.isnan(shortcut.accuracy):
        return _too_few(check, shortcut)
    said = f"{what} guess the choice in {_interval(shortcut)}"
    said += "; report this beside every probe." if shortcut.works else ", no better than a coin."
    return Finding(check, "warning" if shortcut.works else "ok", said, shortcut.table)


def _too_few(check: str, shortcut: Shortcut) -> Finding:
    said = f"{shortcut.pairs:,} usable untied pairs of {shortcut.prompts:,} prompts are too few to tell."
    return Finding(check, "note", said, shortcut.table)


def _interval(shortcut: Shortcut) -> str:
    return (
        f"{100 * shortcut.accuracy:.1f}% [{100 * shortcut.low:.1f}, {100 * shortcut.high:.1f}] of "
        f"{shortcut.pairs:,} pairs"
    )
