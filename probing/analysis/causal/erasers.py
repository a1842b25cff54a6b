"""Erasers of a block's reading, those of controls, and what a probe that is trained anew still reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from probing.analysis.causal.directions import RANDOM, TRAINED, random_direction
from probing.analysis.engine import SHUFFLED, FeatureSource, Site, facets_of, read_site
from probing.interventions import Eraser, fit_eraser
from probing.probes import LogisticProbe
from probing.statistics import Interval, outcomes, share_interval


@dataclass(frozen=True)
class Erased:
    """An eraser with its certificate.

    Attributes:
        block: Block.
        facet: Facet whose choices are erased.
        control: ``trained``; ``shuffled`` (choices exchanged at random), ``random`` (another direction).
        eraser: The map, of rank 1.
        reading: Accuracy on test pairs of a probe that is trained anew on erased features.
    """

    block: int
    facet: str
    control: str
    eraser: Eraser
    reading: Interval


def erasers(store: FeatureSource, pairs: pd.DataFrame, site: Site, facet: str, *, seed: int = 0) -> Iterator[Erased]:
    """Fit the eraser (LEACE) of a facet's choices at one site, and those of controls.

    It is fitted to differences of training pairs, which have no mean of items; items keep that of the training items.

    Args:
        store: Features of the backbone.
        pairs: The pairs.
        site: Where features are read; a mean over tokens.
        facet: Facet of the pairs.
        seed: Of the controls.

    Raises:
        UserError: As :func:`probing.analysis.engine.facets_of`.
    """
    of_facet = facets_of(store, pairs, [facet])[0]
    features = read_site(store, site).astype(np.float64)
    differences, choices = of_facet.train.differences(features), of_facet.train.choices
    rng = np.random.default_rng([seed, site.block])
    mean, unit = features[of_facet.training_rows].mean(axis=0), random_direction(features.shape[1], rng)
    matrices = {
        TRAINED: fit_eraser(differences, choices).matrix,
        SHUFFLED: fit_eraser(differences, rng.permutation(choices)).matrix,
        RANDOM: np.outer(unit, unit),
    }
    for control, matrix in matrices.items():
        eraser = Eraser(matrix, mean)
        erased = eraser.apply(features)
        probe = LogisticProbe().fit(of_facet.train.differences(erased), choices, groups=of_facet.train.prompts)
        margins = probe.decision_function(of_facet.test.differences(erased))
        reading = share_interval(outcomes(margins, of_facet.test.choices), of_facet.test.prompts)
        yield Erased(site.block, facet, control, eraser, reading)
