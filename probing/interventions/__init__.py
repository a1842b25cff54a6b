"""Change what blocks put out while a transformer runs: steering, patching, erasing."""

from probing.interventions.edits import combine, erase, patch, steer
from probing.interventions.erasure import Eraser, fit_eraser
from probing.interventions.sampling import sample_edited

__all__ = ["Eraser", "combine", "erase", "fit_eraser", "patch", "sample_edited", "steer"]
