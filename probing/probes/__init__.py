"""Probes: small trained maps from features to a reward, with scikit-learn's conventions."""

from probing.probes.floors import MeanDifferenceProbe, PrincipalDirectionProbe
from probing.probes.logistic import ALPHAS, LogisticProbe
from probing.probes.ridge import RidgeProbe
from probing.probes.selection import check_apart, grouped_folds

PROBES = {
    "logistic": LogisticProbe,
    "ridge": RidgeProbe,
    "mean_difference": MeanDifferenceProbe,
    "pca1": PrincipalDirectionProbe,
}
"""Probes by the name that commands and tables use."""

__all__ = [
    "ALPHAS",
    "PROBES",
    "LogisticProbe",
    "MeanDifferenceProbe",
    "PrincipalDirectionProbe",
    "RidgeProbe",
    "check_apart",
    "grouped_folds",
]
