from .extraction import Extracted, extract
from .plan import ExtractionPlan, make_plan
from .settings import ExtractionSettings
from .store import FeatureStore

__all__ = ["Extracted", "ExtractionPlan", "ExtractionSettings", "FeatureStore", "extract", "make_plan"]
