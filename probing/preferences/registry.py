"""Names of data sets, and files of pairs."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection
from pathlib import Path
from typing import Literal, get_args

from probing.errors import UserError, shown
from probing.preferences import hub, pairs_file
from probing.preferences.benchmarks import BENCHMARKS
from probing.preferences.data import PreferenceData
from probing.preferences.splits import drop_crossing_prompts, refuse_crossing_prompts
from probing.preferences.tables import from_comparisons

_TESTBED = {"testbed": "probing.testbed.preferences", "testbed-shortcut": "probing.testbed.shortcut"}
NAMES = (*_TESTBED, *BENCHMARKS)
Leaks = Literal["refuse", "drop", "keep"]
LEAKS: tuple[str, ...] = get_args(Leaks)


def load(
    name: str,
    *,
    root: Path | None = None,
    split: str | Collection[str] | None = None,
    seed: int = 0,
    leaks: Leaks = "refuse",
) -> PreferenceData:
    """Load preference data by name, or from a file of pairs.

    Args:
        name: Of :data:`NAMES`, or a path that ends in .csv, .parquet or .jsonl.
        root: Folder of a benchmark's files, or what a file's image paths are relative to. A benchmark without it is
            fetched from the hub, where it is there.
        split: ``train``, ``validation`` or ``test``; of several, the first must be there; None for all.
        seed: Of what is drawn when reading: places and, without an official one, the split.
        leaks: What to do where a prompt's words stand in two splits: ``refuse``, ``drop`` its pairs from the splits
            that are less held out, or ``keep`` them (for audits).

    Raises:
        UserError: Unknown name (with the nearest ones), or what the reader refuses.
    """
    if leaks not in LEAKS:
        raise UserError(f"Unknown way with leaks {leaks!r}; known are {', '.join(LEAKS)}.")
    if name in _TESTBED:
        # By name, for the testbed stands above this room.
        data = importlib.import_module(_TESTBED[name]).load(seed=seed)
    elif name in BENCHMARKS:
        data = _load_benchmark(name, root, split, seed)
    elif Path(name).suffix.lower() in pairs_file.SUFFIXES:
        comparisons = pairs_file.read(Path(name), root=root)
        data = from_comparisons(Path(name).stem, *comparisons, randomize_sides=True, seed=seed)
    elif Path(name).suffix or Path(name).name != name:
        raise UserError(
            f"{name} is neither a data set's name nor a table; a file of pairs ends in "
            f"{', '.join(pairs_file.SUFFIXES)}."
        )
    else:
        near = difflib.get_close_matches(name, NAMES, n=2, cutoff=0.4) or list(NAMES)
        raise UserError(
            f"Unknown data set {shown(name)}; did you mean {' or '.join(near)}? "
            f"A file of pairs ends in {', '.join(pairs_file.SUFFIXES)}."
        )
    if leaks == "refuse":
        refuse_crossing_prompts(data)
    elif leaks == "drop":
        data = drop_crossing_prompts(data)
    return data if split is None else data.select(split=split)


def _load_benchmark(name: str, root: Path | None, split: str | Collection[str] | None, seed: int) -> PreferenceData:
    benchmark = BENCHMARKS[name]
    asked = tuple(benchmark.files) if split is None else (split,) if isinstance(split, str) else tuple(split)
    if asked[0] not in benchmark.files:
        raise UserError(f"{benchmark.title} has the splits {', '.join(benchmark.files)}, got {asked[0]!r}.")
    files = {part: file for part, file in benchmark.files.items() if part in asked}
    if root is None:
        if benchmark.hub is None:
            raise UserError(f"--data {name} needs --data-root; its files are at {benchmark.found}.")
        root = hub.fetch(name, benchmark.hub, sorted({p for part in files for p in benchmark.patterns[part]}))
    if not root.is_dir():
        raise UserError(f"There is no folder {root}; --data-root is the folder of {benchmark.title}'s files.")
    return from_comparisons(name, *benchmark.read(root, files), randomize_sides=benchmark.randomize_sides, seed=seed)
