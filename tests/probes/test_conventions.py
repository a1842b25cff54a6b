"""scikit-learn's own checks of its conventions, for every linear probe."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from probing.probes import LogisticProbe, MeanDifferenceProbe, PrincipalDirectionProbe, RidgeProbe


class AsChoices:
    """Takes the checks' labels, whatever numbers they are, as choices: our own only rule about them."""

    def fit(self, X, y=None, groups=None, sample_weight=None):
        if y is not None:
            values = np.asarray(y)
            if values.dtype.kind in "iufO" and np.isfinite(values.astype(float)).all():
                y = (values.astype(float) > values.astype(float).min()).astype(float)
        return super().fit(X, y, groups, sample_weight)


class Logistic(AsChoices, LogisticProbe):
    pass


class RidgeOfChoices(AsChoices, RidgeProbe):
    pass


class MeanDifference(AsChoices, MeanDifferenceProbe):
    pass


class PrincipalDirection(AsChoices, PrincipalDirectionProbe):
    pass


# Copies of a row that share no prompt fall into different folds, so they choose another strength than a weight does;
# that weights count as copies where prompts hold them together is tested with each probe.
UNTRUE = {"Logistic": {"check_sample_weight_equivalence_on_dense_data"}}
UNTRUE["RidgeOfChoices"] = UNTRUE["Logistic"]

CASES = [
    pytest.param(probe, check, id=f"{type(probe).__name__}-{check.func.__name__}")
    for case in (Logistic(), RidgeOfChoices(), MeanDifference(), PrincipalDirection())
    for probe, check in estimator_checks_generator(case)
    if check.func.__name__ not in UNTRUE.get(type(case).__name__, ())
]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("probe", "check"), CASES)
def test_it_keeps_the_conventions(probe, check):
    check(probe)
