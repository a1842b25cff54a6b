"""Scaling: accuracy against model size and training."""

from probing.analysis.scaling.experiment import ScalingSettings, measure_scaling, options_scaling, run_scaling

__all__ = ["ScalingSettings", "measure_scaling", "options_scaling", "run_scaling"]
