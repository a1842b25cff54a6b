"""Names of data sets, and files of pairs."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path

from probing.errors import UserError
from probing.preferences import hpdv3, pairs_file
from probing.preferences.data import PreferenceData

NAMES = ("testbed", *hpdv3.NAMES)
_TESTBED = "probing.testbed.preferences"


def load(name: str, *, root: Path | None = None, split: str | None = None, seed: int = 0) -> PreferenceData:
    """Load preference data by name, or from a file of pairs.

    Args:
        name: Of :data:`NAMES`, or a path that ends in .csv, .parquet or .jsonl.
        root: Folder of a benchmark's files, or what a file's image paths are relative to.
        split: ``train``, ``validation`` or ``test``; None for all.
        seed: Of what is drawn when reading: places and, without an official one, the split.

    Raises:
        UserError: Unknown name (with the nearest ones), or what the reader refuses.
    """
    if name == "testbed":
        # By name, for the testbed stands above this room.
        data = importlib.import_module(_TESTBED).load(seed=seed)
    elif name in hpdv3.NAMES:
        if root is None:
            raise UserError(f"--data {name} needs --data-root, the folder of its JSON files and pictures.")
        return hpdv3.load(root, name=name, split=split, seed=seed)
    elif Path(name).suffix in pairs_file.SUFFIXES:
        data = pairs_file.load(Path(name), root=root, seed=seed)
    else:
        near = difflib.get_close_matches(name, NAMES, n=2, cutoff=0.4) or list(NAMES)
        raise UserError(
            f"Unknown data set {name!r}; did you mean {' or '.join(near)}? "
            f"A file of pairs ends in {', '.join(pairs_file.SUFFIXES)}."
        )
    return data if split is None else data.select(split=split)
