"""What every experiment gets: stores, pairs, selections, and how to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from probing.analysis.engine.recipe import LOGISTIC, Recipe
from probing.analysis.engine.run import Run
from probing.analysis.engine.sites import ALL, Sites
from probing.analysis.engine.source import FeatureSource
from probing.analysis.engine.store_identity import StoreIdentity

if TYPE_CHECKING:
    import torch

    from probing.backbones import BackboneSpec
    from probing.preferences import PreferenceData

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Model:
    """A backbone to be loaded.

    Attributes:
        spec: Name, source and architecture.
        device: Device of the forwards.
        dtype: Type of weights and forwards.
    """

    spec: BackboneSpec
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class Context:
    """The inputs of an experiment.

    Attributes:
        stores: Feature stores.
        pairs: Pairs of the first store, with their split.
        sites: Which sites.
        facets: Which facets; all if None.
        recipe: The probe.
        run: How to run.
        model: The backbone, for experiments that run forwards.
        data: Items and pictures, for experiments that open pictures.
        split: Split of the data; None for all.
    """

    stores: tuple[FeatureSource, ...] = ()
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    sites: Sites = ALL
    facets: Sequence[str] | None = None
    recipe: Recipe = LOGISTIC
    run: Run = field(default_factory=Run)
    model: Model | None = None
    data: PreferenceData | None = None
    split: str | None = None

    @property
    def selections(self) -> dict[str, Any]:
        """The keyword arguments that all experiments on stores share."""
        return {"sites": self.sites, "facets": self.facets, "recipe": self.recipe, "run": self.run}

    @property
    def trained(self) -> FeatureSource:
        """The first store of trained weights and own prompts, else the first store."""
        trained = [store for store in self.stores if StoreIdentity(store).control == "trained"]
        return (trained or list(self.stores))[0]
