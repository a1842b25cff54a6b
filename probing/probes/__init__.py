"""Probes: small trained maps from features to a reward, with scikit-learn's conventions."""

from collections.abc import Callable
from functools import partial

from probing.errors import UserError
from probing.probes._base import LinearProbe, Probe
from probing.probes._coding import CodeLength, online_code_length
from probing.probes._disk import DiskRows
from probing.probes._floors import MeanDifferenceProbe, PrincipalDirectionProbe
from probing.probes._kept import describe_probe, restore_probe
from probing.probes._logistic import ALPHAS, LogisticProbe
from probing.probes._neural import AttentionProbe, MLPProbe, NeuralProbe
from probing.probes._refits import bootstrap_refits, relabelled_margins
from probing.probes._ridge import RidgeProbe
from probing.probes._scalings import MASSIVE, SCALINGS
from probing.probes._selection import check_apart, grouped_folds

PROBES: dict[str, Callable[[], Probe]] = {
    "logistic": LogisticProbe,
    "ridge": RidgeProbe,
    "mean_difference": MeanDifferenceProbe,
    "pca1": PrincipalDirectionProbe,
    "mlp": MLPProbe,
    "mlp_paper": partial(MLPProbe, hidden=(1024, 1024), learning_rate=1e-4),
    "attention": AttentionProbe,
}
"""Constructors of probes, by the name that commands and tables use. ``mlp_paper`` is the head of the DiT-Reward paper.
A new probe is one module and one line here."""


def make_probe(name: str = "logistic", *, scaling: str = "standard", device: str = "cpu") -> Probe:
    """Make a probe of :data:`PROBES`.

    Args:
        name: Name of the probe.
        scaling: Name in :data:`SCALINGS`, or ``auto``; some probes have ``standard`` only.
        device: Device of the matrix products, in torch's notation, for probes with that option.

    Raises:
        UserError: Unknown name or scaling, or a scaling that the probe does not have.
    """
    if name not in PROBES:
        raise UserError(f"Unknown probe {name!r}; known are {', '.join(PROBES)}.")
    if scaling not in (*SCALINGS, "auto"):
        raise UserError(f"Unknown scaling {scaling!r}; known are {', '.join(SCALINGS)}, auto.")
    probe = PROBES[name]()
    options = probe.get_params()
    if scaling != "standard" and "scaling" not in options:
        raise UserError(f"The probe {name} always standardises; leave out the scaling {scaling}.")
    values = {"scaling": scaling, "device": device}
    probe.set_params(**{option: value for option, value in values.items() if option in options})
    return probe


__all__ = [
    "ALPHAS",
    "MASSIVE",
    "PROBES",
    "SCALINGS",
    "AttentionProbe",
    "CodeLength",
    "DiskRows",
    "LinearProbe",
    "LogisticProbe",
    "MLPProbe",
    "MeanDifferenceProbe",
    "NeuralProbe",
    "PrincipalDirectionProbe",
    "Probe",
    "RidgeProbe",
    "bootstrap_refits",
    "check_apart",
    "describe_probe",
    "grouped_folds",
    "make_probe",
    "online_code_length",
    "relabelled_margins",
    "restore_probe",
]
