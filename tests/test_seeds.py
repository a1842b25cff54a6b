"""Bounds of seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probing.errors import UserError
from probing.seeds import LARGEST_SEED, check_seed


@pytest.mark.parametrize("seed", [0, 1, LARGEST_SEED])
def test_seeds_that_every_generator_takes(seed):
    assert check_seed(seed) == seed
    torch.Generator().manual_seed(seed)
    np.random.default_rng(seed)
    assert np.array([seed], dtype=np.int64)[0] == seed


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1, 2**80])
def test_seeds_out_of_range(seed):
    with pytest.raises(UserError, match=f"from 0 to {LARGEST_SEED}, got {seed}"):
        check_seed(seed)
