"""The measuring engine: sites and facets in, fits and tables of cells out."""

from probing.analysis.engine.cells import LATENTS, measure_cells, measure_latents
from probing.analysis.engine.context import Context, Model, Tables
from probing.analysis.engine.facets import ALL_FACETS, Facet, PairSet, facets_of, in_facet
from probing.analysis.engine.fitting import CurveReader, Fit, Fitter, Job, cell_name, in_order
from probing.analysis.engine.identity import Identity, check_made_from, identify, refuse_others, table_digest
from probing.analysis.engine.journal import Journal, prune_journal
from probing.analysis.engine.provenance import KEYS, PROVENANCE, REFERENCE, column_names, package_version, provenance
from probing.analysis.engine.recipe import LOGISTIC, Recipe
from probing.analysis.engine.results import (
    SHUFFLED,
    CellResults,
    accuracies,
    average_draws,
    cell_results,
    common_columns,
    concatenate_facets,
    facet_columns,
    format_difference,
    gains,
)
from probing.analysis.engine.run import Run
from probing.analysis.engine.sites import ALL, Curve, Site, Sites, choose, read_for_fits, read_site
from probing.analysis.engine.source import FeatureSource, digest_of, flatten, read_latent_reduction, store_name
from probing.analysis.engine.store_identity import StoreIdentity, check_comparable, check_models
from probing.analysis.engine.verdicts import ABOVE, BELOW, MIN_PROMPTS, OPEN, TOO_LITTLE, WORDS, correct, format_p_value

__all__ = [
    "ABOVE",
    "ALL",
    "ALL_FACETS",
    "BELOW",
    "KEYS",
    "LATENTS",
    "LOGISTIC",
    "MIN_PROMPTS",
    "OPEN",
    "PROVENANCE",
    "REFERENCE",
    "SHUFFLED",
    "TOO_LITTLE",
    "WORDS",
    "CellResults",
    "Context",
    "Curve",
    "CurveReader",
    "Facet",
    "FeatureSource",
    "Fit",
    "Fitter",
    "Identity",
    "Job",
    "Journal",
    "Model",
    "PairSet",
    "Recipe",
    "Run",
    "Site",
    "Sites",
    "StoreIdentity",
    "Tables",
    "accuracies",
    "average_draws",
    "cell_name",
    "cell_results",
    "check_comparable",
    "check_made_from",
    "check_models",
    "choose",
    "column_names",
    "common_columns",
    "concatenate_facets",
    "correct",
    "digest_of",
    "facet_columns",
    "facets_of",
    "flatten",
    "format_difference",
    "format_p_value",
    "gains",
    "identify",
    "in_facet",
    "in_order",
    "measure_cells",
    "measure_latents",
    "package_version",
    "provenance",
    "prune_journal",
    "read_for_fits",
    "read_latent_reduction",
    "read_site",
    "refuse_others",
    "store_name",
    "table_digest",
]
