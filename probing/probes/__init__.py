"""Probes: small trained maps from features to a reward, with scikit-learn's conventions."""

from probing.probes.logistic import ALPHAS, LogisticProbe
from probing.probes.selection import check_apart, grouped_folds

PROBES = {"logistic": LogisticProbe}
"""Probes by the name that commands and tables use."""

__all__ = ["ALPHAS", "PROBES", "LogisticProbe", "check_apart", "grouped_folds"]
