"""Load preference data by the name of a data set, or from a file of pairs."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Collection, Sequence
from pathlib import Path

from probing.errors import UserError, shown
from probing.paths import path_of, reached
from probing.preferences import pairs_file
from probing.preferences.benchmarks import BENCHMARKS, hub
from probing.preferences.comparisons import from_comparisons
from probing.preferences.data import PreferenceData
from probing.preferences.mixture import MIXTURES, mix
from probing.preferences.rules import LEAKS, Duplicates, Leaks
from probing.preferences.splits import drop_crossing_prompts, refuse_crossing_prompts

_TESTBED = {"testbed": "probing.testbed.preferences", "testbed-shortcut": "probing.testbed.shortcut"}
NAMES = (*_TESTBED, *BENCHMARKS)
"""Names of the data sets."""


def load_pairs(
    source: str | Path,
    *,
    root: Path | None = None,
    split: str | Collection[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    leaks: Leaks = "refuse",
    shares: Sequence[float] = (),
    duplicates: Duplicates = "drop",
    seed: int = 0,
) -> PreferenceData:
    """Load preference pairs of a data set or several, or from a file.

    Args:
        source: A name of :data:`NAMES`, or a path that ends in .csv, .parquet or .jsonl. Several with commas between,
            or a name of :data:`probing.preferences.mixture.MIXTURES`, become one data set: see
            :func:`probing.preferences.mixture.mix`.
        root: Folder of a benchmark's files (of several, each in a folder of its name), or the folder that a file's
            image paths are relative to (default: the file's). Without it, a benchmark is fetched from the Hugging Face
            hub.
        split: ``train``, ``validation`` or ``test``; of several, the first is required; None for all.
        where: Select pairs by a condition on their columns, such as ``confidence >= 0.95``; see
            :meth:`PreferenceData.where`.
        limit: Largest number of items, by whole prompt groups, spread evenly over the data.
        leaks: What to do if a prompt is in two splits: ``refuse``, ``drop`` its pairs from the splits that are less
            held out, or ``keep`` them (for audits).
        shares: Of several data sets, the share of each among the training pairs; all pairs if empty.
        duplicates: Of several, what to do with pairs of a prompt that an earlier one has: ``drop`` or ``keep``.
        seed: Seed of what is randomised while reading: the sides and, without an official one, the split.

    Raises:
        UserError: An unknown name (with the nearest ones), missing or damaged files, a leak, a condition that cannot
            be read, or no pairs left.
    """
    if leaks not in LEAKS:
        raise UserError(f"Unknown value of leaks {leaks!r}; give one of {', '.join(LEAKS)}.")
    data = _read_all(str(source), root, split, seed, shares, duplicates)
    if leaks == "refuse":
        refuse_crossing_prompts(data)
    elif leaks == "drop":
        data = drop_crossing_prompts(data)
    if split is not None:
        data = data.select(split=split)
    if where:
        data = data.where(where)
    return data if limit is None else data.select(limit=limit)


def _read_all(
    source: str,
    root: Path | None,
    split: str | Collection[str] | None,
    seed: int,
    shares: Sequence[float],
    duplicates: Duplicates,
) -> PreferenceData:
    """Read one data set, or several as one."""
    named = MIXTURES.get(source) or tuple((name.strip(), "") for name in source.split(","))
    if len(named) == 1:
        if shares:
            raise UserError(f"--mix shares the training pairs of several data sets, and {source} is one.")
        return _read(source, root, split, seed)
    parts = []
    for name, condition in named:
        is_file = Path(name).suffix.lower() in pairs_file.SUFFIXES
        part = _read(name, root if root is None or is_file else root / name, split, seed)
        parts.append(part.where(condition) if condition else part)
    return mix(parts, shares=shares, duplicates=duplicates)


def _read(source: str, root: Path | None, split: str | Collection[str] | None, seed: int) -> PreferenceData:
    path = Path(source)
    if source in _TESTBED:
        # Imported by name: the testbed is above this package.
        return importlib.import_module(_TESTBED[source]).load(seed=seed)
    if source in BENCHMARKS:
        return _read_benchmark(source, root, split, seed)
    suffixes = ", ".join(pairs_file.SUFFIXES)
    if path.suffix.lower() in pairs_file.SUFFIXES:
        table = pairs_file.read(path_of(source), root=root)
        return from_comparisons(path.stem, *table, randomize_sides=True, seed=seed)
    if path.suffix or path.name != source:
        raise UserError(f"{source} is neither a data set's name nor a table; a file of pairs ends in {suffixes}.")
    near = difflib.get_close_matches(source, NAMES, n=2, cutoff=0.4) or list(NAMES)
    raise UserError(
        f"Unknown data set {shown(source)}; did you mean {' or '.join(near)}? A file of pairs ends in {suffixes}."
    )


def _read_benchmark(name: str, root: Path | None, split: str | Collection[str] | None, seed: int) -> PreferenceData:
    benchmark = BENCHMARKS[name]
    requested = tuple(benchmark.files) if split is None else (split,) if isinstance(split, str) else tuple(split)
    if requested[0] not in benchmark.files:
        raise UserError(f"{benchmark.title} has the splits {', '.join(benchmark.files)}, got {requested[0]!r}.")
    files = {part: file for part, file in benchmark.files.items() if part in requested}
    if root is None:
        if benchmark.hub is None:
            raise UserError(f"--data {name} needs --data-root; its files are at {benchmark.source}.")
        patterns = sorted({pattern for part in files for pattern in benchmark.patterns[part]})
        root = hub.fetch(name, benchmark.hub, patterns, mirrors=benchmark.mirrors, gone=benchmark.gone)
    root = path_of(root)
    with reached(root):
        is_there = root.is_dir()
    if not is_there:
        raise UserError(f"There is no folder {root}; --data-root is the folder of {benchmark.title}'s files.")
    return from_comparisons(name, *benchmark.read(root, files), randomize_sides=benchmark.randomize_sides, seed=seed)
