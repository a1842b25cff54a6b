"""The solver of the logistic probe: many L2-penalised fits over one design at once, by :func:`solve`."""

from probing.probes._solver._columns import LazyWeights, select, zeros
from probing.probes._solver._design import Design
from probing.probes._solver._solve import solve

__all__ = ["Design", "LazyWeights", "select", "solve", "zeros"]
