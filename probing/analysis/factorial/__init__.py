"""Factorial design: head, stream, noise level and model varied together."""

from probing.analysis.factorial.experiment import (
    FactorialSettings,
    effect_rows,
    measure_factorial,
    report_factorial,
    run_factorial,
)

__all__ = ["FactorialSettings", "effect_rows", "measure_factorial", "report_factorial", "run_factorial"]
