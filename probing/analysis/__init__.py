"""Experiments: stores and pairs in, tidy tables out. The registry is :mod:`probing.experiments`."""
