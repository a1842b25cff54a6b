"""Agreement within a picture against other implementations, and heat maps that lie on the right tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from probing.analysis.heat_maps.agreement import area, centre_map, edge_map, rank_correlation, truth_on_grid

MAPS = st.lists(st.integers(0, 5), min_size=12, max_size=12).map(lambda values: np.array(values, dtype=float))


@given(MAPS, MAPS)
def test_both_measures_are_those_of_other_libraries(map_, truth):
    marked = truth > truth.max() / 2
    if truth.max() > 0 and 0 < marked.sum() < 12:
        assert area(map_, truth) == pytest.approx(roc_auc_score(marked, map_))
    else:
        assert np.isnan(area(map_, truth))
    if np.ptp(map_) and np.ptp(truth):
        assert rank_correlation(map_, truth) == pytest.approx(spearmanr(map_, truth).statistic)
    else:
        assert np.isnan(rank_correlation(map_, truth))


@pytest.mark.parametrize("shape", [(8, 8), (16, 16), (64, 64), (512, 512)])
def test_a_heat_map_of_any_resolution_marks_the_tokens_below_it(shape):
    heat_map = np.zeros(shape, dtype=np.float32)
    # The upper right quarter.
    heat_map[: shape[0] // 2, shape[1] // 2 :] = 0.7
    truth = truth_on_grid(heat_map, Image.new("RGB", (100, 100)), 64, "center-crop", (4, 4)).reshape(4, 4)
    expected = np.zeros((4, 4))
    expected[:2, 2:] = 0.7
    np.testing.assert_allclose(truth, expected, atol=0.01)


def test_a_heat_map_is_cut_and_filled_as_its_picture():
    heat_map = np.zeros((4, 8), dtype=np.float32)
    heat_map[:, 6:] = 1.0
    wide = Image.new("RGB", (200, 100))
    # The right quarter of a picture of two to one is cut off, or lies at the right between bars.
    assert truth_on_grid(heat_map, wide, 64, "center-crop", (4, 4)).max() < 0.01
    padded = truth_on_grid(heat_map, wide, 64, "pad", (4, 4)).reshape(4, 4)
    np.testing.assert_allclose(padded[1:3, 3], 1, atol=0.02)
    assert padded[[0, 3]].max() == 0
    stretched = truth_on_grid(heat_map, wide, 64, "stretch", (4, 4)).reshape(4, 4)
    np.testing.assert_allclose(stretched[:, 3], 1, atol=0.02)


def test_edges_and_the_centre_are_where_they_are():
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("black", (40, 40, 64, 64))
    edges = edge_map(picture, (8, 8)).reshape(8, 8)
    # The black corner begins between the fifth and the sixth token.
    rows, columns = np.nonzero(edges > 1e-9)
    assert set(rows) == set(columns) == {4, 5, 6, 7} and edges[4, 4:].min() > 1
    assert edges[6:, 6:].max() < 1e-9 and edges[:4].max() < 1e-9
    near = centre_map((3, 5)).reshape(3, 5)
    assert np.unravel_index(near.argmax(), near.shape) == (1, 2) and near[0, 0] == pytest.approx(near.min())
