"""The public benchmarks by name. To add one, write its reader in a file of this folder and enter it here."""

from probing.preferences.benchmarks import genai_bench, hpdv2, hpdv3, imagereward, pickapic
from probing.preferences.benchmarks.base import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    **hpdv3.BENCHMARKS,
    **hpdv2.BENCHMARKS,
    **imagereward.BENCHMARKS,
    **pickapic.BENCHMARKS,
    **genai_bench.BENCHMARKS,
}

__all__ = ["BENCHMARKS", "Benchmark"]
