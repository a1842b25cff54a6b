"""The functions behind the public names of :mod:`probing`; commands call the same ones."""
