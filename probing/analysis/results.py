"""The table of an experiment, and the outcomes behind it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from importlib import metadata

import pandas as pd

from probing.analysis.source import FeatureSource, name_of

COLUMNS = (
    "model",
    "data",
    "split",
    "sigma",
    "stream",
    "reduction",
    "block",
    "depth",
    "probe",
    "control",
    "seed",
    "facet",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n_pairs",
    "n_prompts",
    "alpha",
    "cv_accuracy",
    "ceiling",
    "n_train_pairs",
    "scaling",
    "temperature",
    "compression",
    "probe_seeds",
    "seed_deviation",
    "cell",
    "store",
    "revision",
    "config_hash",
    "data_fingerprint",
    "resolution",
    "extraction_seed",
    "package_version",
)
"""Columns of a result table. ``control`` is trained, random-init, latents, shuffled, or reference
(another model's rewards, where nothing is fitted); ``cell`` names a column of outcomes and of margins. ``temperature`` divides margins into log odds,
fitted out of fold on training pairs; ``compression`` is how many times shorter than coins an online code of the
training choices is; ``value`` is a mean over ``probe_seeds`` trainings, ``seed_deviation`` their standard deviation."""

REFERENCE = "reference"
"""The control that is another model's rewards."""
KEYS = ["pair_id", "prompt_id", "facet"]


@dataclass(frozen=True)
class CellResults:
    """Measurements, and the outcome of every test pair in each.

    Attributes:
        table: One row a cell, with the columns :data:`COLUMNS`.
        outcomes: One row a test pair (``pair_id``, ``prompt_id``, ``facet``) and one column a cell, named by the
            table's ``cell``: 1 right, 0 wrong, 0.5 a predicted tie, NaN a tie of the annotators or another facet; a
            mean over the probe's seeds.
        margins: Likewise, the reward of the first item less that of the second; NaN another facet.
    """

    table: pd.DataFrame
    outcomes: pd.DataFrame
    margins: pd.DataFrame

    @staticmethod
    def join(*parts: CellResults) -> CellResults:
        """Put measurements on the same pairs side by side.

        Raises:
            ValueError: A cell is in two of them.
        """
        table = pd.concat([part.table for part in parts], ignore_index=True)
        if table["cell"].duplicated().any():
            twice = table.loc[table["cell"].duplicated(), "cell"].iloc[0]
            raise ValueError(f"Got cell {twice} twice, expected it once; join results of different stores or controls.")
        outcomes, margins = (
            reduce(
                lambda left, right: left.merge(right, on=KEYS, how="outer", validate="one_to_one"),
                (getattr(part, name) for part in parts),
            )
            for name in ("outcomes", "margins")
        )
        return CellResults(table, outcomes, margins)


def provenance(store: FeatureSource) -> dict[str, object]:
    """List what a store's measurements come from; None where the store does not record it."""
    attributes = store.attributes
    return {
        "model": attributes.get("model"),
        "data": attributes.get("data"),
        "store": name_of(store),
        "revision": attributes.get("revision"),
        "config_hash": attributes.get("config_hash"),
        "data_fingerprint": attributes.get("data_fingerprint"),
        "resolution": attributes.get("resolution"),
        "extraction_seed": attributes.get("seed"),
        "package_version": package_version(),
    }


def package_version() -> str | None:
    """Give the version of this package; None where it is used without being installed."""
    try:
        return metadata.version("dit-probing")
    except metadata.PackageNotFoundError:
        return None
