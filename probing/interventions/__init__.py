"""Change what blocks put out while a transformer runs: steering, patching, erasing; and guide a sampler."""

from probing.interventions.edits import combine, erase, patch, steer
from probing.interventions.erasure import Eraser, fit_eraser
from probing.interventions.guidance import guide
from probing.interventions.sampling import sample_edited

__all__ = ["Eraser", "combine", "erase", "fit_eraser", "guide", "patch", "sample_edited", "steer"]
