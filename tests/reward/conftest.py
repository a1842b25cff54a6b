"""A tiny store of quality pairs, on which the tests of rewards train their heads."""

from __future__ import annotations

import pytest

import probing
from probing.features import FeatureStore
from tests.fakes.tiny_sd3 import T5_LENGTH

READ = {
    "sigmas": (0.005, 0.6),
    "streams": ("image", "text"),
    "reductions": ("mean", "grid4"),
    "batch_size": 4,
    "resolution": 32,
    "t5_length": T5_LENGTH,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def data():
    return probing.load_pairs("testbed", where="facet == 'quality'", limit=96)


@pytest.fixture(scope="module")
def store(tiny_folder, data, tmp_path_factory) -> FeatureStore:
    return probing.extract(tiny_folder, data, output=tmp_path_factory.mktemp("reward") / "tiny.zarr", **READ)
