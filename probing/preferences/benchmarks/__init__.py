"""The public benchmarks by name. To add one, write its reader in a file of this folder and enter it here."""

from probing.preferences.benchmarks import (
    genai_bench,
    genai_bench_1600,
    hpdv2,
    hpdv3,
    hpdv3pp,
    imagereward,
    mmrb2,
    open_image_preferences,
    pickapic,
    rapidata,
    richhf,
    visionreward,
)
from probing.preferences.benchmarks.base import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    **hpdv3.BENCHMARKS,
    **hpdv2.BENCHMARKS,
    **imagereward.BENCHMARKS,
    **pickapic.BENCHMARKS,
    **genai_bench.BENCHMARKS,
    **genai_bench_1600.BENCHMARKS,
    **hpdv3pp.BENCHMARKS,
    **mmrb2.BENCHMARKS,
    **open_image_preferences.BENCHMARKS,
    **visionreward.BENCHMARKS,
    **rapidata.BENCHMARKS,
    **richhf.BENCHMARKS,
}

__all__ = ["BENCHMARKS", "Benchmark"]
