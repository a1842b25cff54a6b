"""The feature store: a Zarr v3 group with checksums of its content."""

from probing.features.store.casting import to_stored
from probing.features.store.check import Problem, check, repair
from probing.features.store.layout import SCHEMA, ArraySpec
from probing.features.store.merging import merge
from probing.features.store.store import FeatureStore
from probing.features.store.upgrade import upgrade

__all__ = ["SCHEMA", "ArraySpec", "FeatureStore", "Problem", "check", "merge", "repair", "to_stored", "upgrade"]
