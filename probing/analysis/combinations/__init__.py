"""Combinations: probes on several blocks, within and across stages."""

from probing.analysis.combinations.experiment import CombinationSettings, measure_combinations, run_combinations

__all__ = ["CombinationSettings", "measure_combinations", "run_combinations"]
