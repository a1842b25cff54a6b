"""Small trained maps from features to a reward. They take arrays and know no store."""

from probing.probes.logistic import LogisticProbe
from probing.probes.selection import grouped_folds

__all__ = ["LogisticProbe", "grouped_folds"]
