from .benchmarks import BENCHMARKS, Benchmark
from .data import PreferenceData
from .images import DrawnImages, ImageFolder, ImageSource, ParquetImages, prepare
from .registry import NAMES, load_pairs
from .splits import split_pairs

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
