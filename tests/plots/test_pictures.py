"""A gallery has a row a way and a column a caption."""

from __future__ import annotations

import pytest
from PIL import Image

from probing.plots import figure_pictures


def squares(*colours):
    return [Image.new("RGB", (4, 4), colour) for colour in colours]


def test_rows_and_columns():
    figure = figure_pictures(
        {"before": squares("red", "blue"), "after": squares("lime", "black")}, ["a", "b"], title="t"
    )
    first, second, third, _ = figure.axes
    assert (first.get_title(), second.get_title(), third.get_title()) == ("a", "b", "")
    assert (first.get_ylabel(), third.get_ylabel()) == ("before", "after")
    assert tuple(third.images[0].get_array()[0, 0]) == (0, 255, 0)


def test_a_missing_picture_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        figure_pictures({"before": squares("red")}, ["a", "b"], title="t")
