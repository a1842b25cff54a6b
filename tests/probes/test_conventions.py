"""scikit-learn's estimator checks, for every linear probe."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from probing.probes import LogisticProbe, MeanDifferenceProbe, PrincipalDirectionProbe, RidgeProbe


class ChoiceLabels:
    """Convert the checks' labels to choices, since the probes require labels in [0, 1]."""

    def fit(self, X, y=None, groups=None, sample_weight=None):
        if y is not None:
            values = np.asarray(y)
            if values.dtype.kind in "iufO" and np.isfinite(values.astype(float)).all():
                y = (values.astype(float) > values.astype(float).min()).astype(float)
        return super().fit(X, y, groups, sample_weight)


class Logistic(ChoiceLabels, LogisticProbe):
    pass


class RidgeOfChoices(ChoiceLabels, RidgeProbe):
    pass


class MeanDifference(ChoiceLabels, MeanDifferenceProbe):
    pass


class PrincipalDirection(ChoiceLabels, PrincipalDirectionProbe):
    pass


# Copies of a row that share no prompt fall into different folds, so they choose another strength than a weight does;
# that weights count as copies where prompts hold them together is tested with each probe.
EXCLUDED = {"Logistic": {"check_sample_weight_equivalence_on_dense_data"}}
EXCLUDED["RidgeOfChoices"] = EXCLUDED["Logistic"]

CASES = [
    pytest.param(probe, check, id=f"{type(probe).__name__}-{check.func.__name__}")
    for case in (Logistic(), RidgeOfChoices(), MeanDifference(), PrincipalDirection())
    for probe, check in estimator_checks_generator(case)
    if check.func.__name__ not in EXCLUDED.get(type(case).__name__, ())
]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(("probe", "check"), CASES)
def test_scikit_learn_estimator_checks(probe, check):
    check(probe)
