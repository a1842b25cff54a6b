"""Experiments: stores and pairs in, one tidy table out."""

from probing.analysis.blocks import compare_blocks
from probing.analysis.cells import fit_cells, fit_latents
from probing.analysis.comparisons import compare
from probing.analysis.linearity import linearity
from probing.analysis.massive import massive_activations
from probing.analysis.measures import measures
from probing.analysis.recipe import Recipe
from probing.analysis.references import reference
from probing.analysis.results import CellResults
from probing.analysis.reward_curve import reward_curve
from probing.analysis.source import FeatureSource

__all__ = [
    "CellResults",
    "FeatureSource",
    "Recipe",
    "compare",
    "compare_blocks",
    "fit_cells",
    "fit_latents",
    "linearity",
    "massive_activations",
    "measures",
    "reference",
    "reward_curve",
]
