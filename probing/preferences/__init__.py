"""Preference data: pairs of pictures with a choice, as tables."""

from probing.preferences.benchmarks import BENCHMARKS, Benchmark
from probing.preferences.data import PreferenceData
from probing.preferences.images import DrawnImages, ImageFolder, ImageSource, ParquetImages, prepare
from probing.preferences.registry import NAMES, load_pairs
from probing.preferences.splits import split_pairs

__all__ = [
    "BENCHMARKS",
    "NAMES",
    "Benchmark",
    "DrawnImages",
    "ImageFolder",
    "ImageSource",
    "ParquetImages",
    "PreferenceData",
    "load_pairs",
    "prepare",
    "split_pairs",
]
