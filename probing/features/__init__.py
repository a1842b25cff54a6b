"""Features of every block, from noise to the store."""

from probing.features.extraction import Extracted, extract
from probing.features.plan import ExtractionPlan, make_plan
from probing.features.settings import ExtractionSettings
from probing.features.store import FeatureStore

__all__ = ["Extracted", "ExtractionPlan", "ExtractionSettings", "FeatureStore", "extract", "make_plan"]
