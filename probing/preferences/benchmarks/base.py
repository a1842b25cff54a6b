"""What a public benchmark is: where its files are, how they are read, and how its authors score it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from probing.preferences.images import ImageSource

Reader = Callable[[Path, Mapping[str, str]], tuple[pd.DataFrame, ImageSource]]
"""From a folder and the file of each requested split to comparisons and their pictures."""


@dataclass(frozen=True)
class Benchmark:
    """A public benchmark.

    Attributes:
        title: Its usual name.
        hub: Its data set on the Hugging Face hub; None if the hub lacks it in this form.
        patterns: Patterns of the hub's files to download, by split.
        read: Reads the comparisons and pictures of some splits.
        files: The file of each split, or the beginning of its files' names.
        rule: The scoring rule of its authors, one of :data:`probing.statistics.RULES`.
        reported: The accuracy that its authors report.
        randomize_sides: Whether to randomise which picture is first: the published order reveals the choice.
        source: Where its files are if they are not on the hub.
        mirrors: Other data sets of the hub with the same pairs.
        seen: Year and month in which its source was last known to be there, by its page.
        gone: Former data sets of the hub, and since when they have been gone.
    """

    title: str
    hub: str | None
    patterns: Mapping[str, tuple[str, ...]]
    read: Reader
    files: Mapping[str, str]
    rule: str
    reported: str
    randomize_sides: bool = False
    source: str = ""
    mirrors: tuple[str, ...] = ()
    seen: str = "2026-11"
    gone: str = ""
