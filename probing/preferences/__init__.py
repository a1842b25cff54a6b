"""Who chose what: preference data as tables."""

from probing.preferences.benchmarks import BENCHMARKS, Benchmark
from probing.preferences.data import PreferenceData
from probing.preferences.image_sources import DrawnImages, ImageFolder, ImageSource, ParquetImages
from probing.preferences.images import prepare
from probing.preferences.registry import load

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "DrawnImages",
    "ImageFolder",
    "ImageSource",
    "ParquetImages",
    "PreferenceData",
    "load",
    "prepare",
]
