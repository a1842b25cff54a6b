"""Probes: small trained maps from features to a reward, with scikit-learn's conventions."""

from collections.abc import Callable
from functools import partial

from probing.probes.base import LinearProbe
from probing.probes.coding import CodeLength, online_code_length
from probing.probes.floors import MeanDifferenceProbe, PrincipalDirectionProbe
from probing.probes.logistic import ALPHAS, LogisticProbe
from probing.probes.neural import AttentionProbe, MLPProbe, NeuralProbe
from probing.probes.refits import bootstrap_refits
from probing.probes.ridge import RidgeProbe
from probing.probes.scalings import MASSIVE, SCALINGS
from probing.probes.selection import check_apart, grouped_folds

PROBES: dict[str, Callable[[], LinearProbe | NeuralProbe]] = {
    "logistic": LogisticProbe,
    "ridge": RidgeProbe,
    "mean_difference": MeanDifferenceProbe,
    "pca1": PrincipalDirectionProbe,
    "mlp": MLPProbe,
    "mlp_paper": partial(MLPProbe, hidden=(1024, 1024), learning_rate=1e-4),
    "attention": AttentionProbe,
}
"""What makes a probe, by the name that commands and tables use. ``mlp_paper`` is the head of the DiT-Reward paper."""

__all__ = [
    "ALPHAS",
    "MASSIVE",
    "PROBES",
    "SCALINGS",
    "AttentionProbe",
    "CodeLength",
    "LinearProbe",
    "LogisticProbe",
    "MLPProbe",
    "MeanDifferenceProbe",
    "NeuralProbe",
    "PrincipalDirectionProbe",
    "RidgeProbe",
    "bootstrap_refits",
    "check_apart",
    "grouped_folds",
    "online_code_length",
]
