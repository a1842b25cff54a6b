"""Noise: accuracy by noise level and by draws of the noise."""

from probing.analysis.noise.experiment import NoiseSettings, measure_noise, run_noise

__all__ = ["NoiseSettings", "measure_noise", "run_noise"]
