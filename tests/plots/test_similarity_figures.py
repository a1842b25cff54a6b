"""Figures of similarity, stages and token maps show the numbers of their tables."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from probing.analysis.published import PAPER_SIMILARITY, add_published_stages
from probing.analysis.similarity import select_stages
from probing.plots import (
    figure_image_similarity,
    figure_stage_similarity,
    figure_token_maps,
    figure_trajectory_similarity,
    mark_stages,
    plot_similarity,
    plot_stage_similarity,
    plot_token_map,
)
from probing.plots.tokens import centred_maps, picture_of, scores_of
from tests.plots.similarity_tables import similarity_tables, token_table


@pytest.fixture(scope="module")
def tables():
    return similarity_tables()


def one_matrix(table, measure="cka", sigma=0.005):
    return table[(table["measure"] == measure) & (table["sigma"] == sigma) & (table["control"] == "trained")]


def test_matrix_is_symmetric_with_stages_as_squares(tables):
    rows = one_matrix(tables["similarity"])
    ax = plot_similarity(rows)
    matrix = np.asarray(ax.images[0].get_array())
    assert matrix.shape == (10, 10) and (np.diag(matrix) == 1).all() and (matrix == matrix.T).all()
    entry = rows[(rows["block"] == 2) & (rows["other"] == 7)]["value"].item()
    assert matrix[2, 7] == entry
    squares = [patch.get_bbox().bounds for patch in ax.patches if isinstance(patch, Rectangle)]
    assert squares == [(-0.5, -0.5, 2, 2), (1.5, 1.5, 3, 3), (4.5, 4.5, 1, 1), (5.5, 5.5, 4, 4)]
    assert [text.get_text() for text in ax.texts] == ["B1", "B2", "B3", "B4"]


def test_one_stage_and_spreads_have_no_squares(tables):
    assert not plot_similarity(one_matrix(tables["similarity"], "cosine")).patches
    assert not plot_similarity(one_matrix(tables["similarity"]), value="std").patches


def test_rows_of_several_matrices_are_refused(tables):
    with pytest.raises(ValueError, match="of one matrix once, got 440 rows"):
        plot_similarity(tables["similarity"])


def test_heatmaps_have_levels_by_measures(tables):
    figure = figure_image_similarity(tables["similarity"])
    panels = [ax for ax in figure.axes if ax.images and len(ax.images[0].get_array()) == 10]
    labels = [ax.get_ylabel() for ax in panels if ax.get_ylabel()]
    assert labels == [
        "cka\nblock",
        "cka, std\nblock",
        "cosine\nblock",
        "cosine, std\nblock",
        "cka,\nrandom-init\nblock",
        "cosine,\nrandom-init\nblock",
    ]
    assert len(panels) == 12 and [ax.get_title() for ax in panels[:2]] == ["σ = 0.005", "σ = 0.6"]
    # One scale a row.
    assert panels[0].images[0].get_clim() == panels[1].images[0].get_clim()
    assert "40 images of 20 prompts" in figure.legends[0].get_title().get_text().replace("\n", " ")
    along = figure_trajectory_similarity(tables["trajectory_similarity"])
    assert {ax.get_title() for ax in along.axes} >= {"step 0\nσ = 1", "step 39\nσ = 0.03"}


def test_missing_source_is_refused(tables):
    with pytest.raises(ValueError, match="no similarity on trajectory, expected some; the table has that on images"):
        figure_trajectory_similarity(tables["similarity"])


def test_within_and_across_show_their_numbers(tables):
    ax = plot_stage_similarity(tables["stage_similarity"], measure="cka", source="images")
    solid, hollow, dashed, _ = [line for line in ax.lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(solid.get_xdata(), [0.005, 0.6])
    np.testing.assert_allclose(solid.get_ydata(), 0.94, atol=0.01)
    np.testing.assert_allclose(dashed.get_ydata(), 0.73, atol=0.01)
    assert (hollow.get_ydata() < 0.9).all() and hollow.get_markerfacecolor() == "white"
    assert ax.get_title() == "cka, image tokens: 4 stages\n40 images of 20 prompts"
    assert len(ax.collections) == 2


def test_one_stage_is_cut_into_four(tables):
    ax = plot_stage_similarity(tables["stage_similarity"], measure="cosine", source="trajectory")
    assert "cut into 4 (rule: 1 stage)" in ax.get_title()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0\nσ 1", "39\nσ 0.03"]
    assert ax.get_xlabel() == "denoising step of 40"


def test_published_levels_are_drawn_for_their_model_alone(tables):
    of_paper = add_published_stages(tables["stage_similarity"].assign(model=PAPER_SIMILARITY.backbone))
    ax = plot_stage_similarity(of_paper, measure="cka", source="trajectory")
    assert [text.get_text() for text in ax.texts] == ["paper,\nwithin", "paper,\nacross"]
    assert not plot_stage_similarity(of_paper, measure="cka", source="images").texts
    assert not plot_stage_similarity(tables["stage_similarity"], measure="cka", source="trajectory").texts
    assert "Figures 4a, 4b and 6" in figure_stage_similarity(of_paper).legends[0].get_title().get_text()


def test_stage_figure_has_measures_by_sources(tables):
    figure = figure_stage_similarity(tables["stage_similarity"])
    assert len(figure.axes) == 4 and len(figure.legends) == 1
    with pytest.raises(ValueError, match="Got knn images image, expected one of: cka images image"):
        plot_stage_similarity(tables["stage_similarity"], measure="knn", source="images")


def test_stages_are_marked_between_blocks(tables):
    ax = Figure().subplots()
    ax.set_xlim(-0.4, 9.4)
    mark_stages(ax, select_stages(tables["stages"], measure="cka"))
    assert [text.get_text() for text in ax.texts] == ["B1", "B2", "B3", "B4"]
    assert [line.get_xdata()[0] for line in ax.lines] == [1.5, 4.5, 5.5]
    assert ax.get_xlim() == (-0.4, 9.4)
    with pytest.raises(ValueError, match="expected those of one; pick it by select_stages"):
        mark_stages(ax, tables["stages"])


def test_maps_and_pictures_are_those_of_the_table():
    table = token_table()
    item = table.iloc[0]
    assert scores_of(item).shape == (4, 4) and scores_of(item).mean() == pytest.approx(item["reward"])
    assert picture_of(item).size == (16, 16)
    low, high = plot_token_map(scores_of(item)).images[0].get_clim()
    assert low == -high


def test_centring_keeps_differences_and_removes_positions():
    table = token_table().query("facet == 'quality'").reset_index(drop=True)
    table["scores"] = [
        " ".join(f"{s + position:.6g}" for position, s in enumerate(scores_of(item).ravel()))
        for _, item in table.iterrows()
    ]
    maps = centred_maps(table)
    np.testing.assert_allclose(np.mean(maps, axis=0) - np.mean(maps), 0, atol=1e-9)
    for start in range(0, len(table), 2):
        difference = scores_of(table.iloc[start]).mean() - scores_of(table.iloc[start + 1]).mean()
        assert maps[start].mean() == pytest.approx(difference / 2) == pytest.approx(-maps[start + 1].mean())


def test_gallery_frames_the_chosen():
    figure = figure_token_maps(token_table())
    framed = [ax for ax in figure.axes if ax.spines["left"].get_edgecolor() == to_rgba("#009E73")]
    labels = [text for text in figure.texts if text.get_text() == "chosen"]
    # Two facets, three kinds, two pairs.
    assert len(framed) == len(labels) == 12
    assert len(figure_token_maps(token_table((32, 32))).axes) == len(figure.axes)


def test_gallery_fits_without_overlap():
    figure = figure_token_maps(token_table())
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [box for ax in figure.axes if (box := ax.get_tightbbox(renderer)) is not None]
    boxes += [text.get_window_extent(renderer) for text in figure.texts]
    page = figure.bbox
    for number, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert not [before for before in boxes[:number] if box.shrunk(0.9, 0.9).overlaps(before.shrunk(0.9, 0.9))]


def test_global_style_is_unchanged(tables):
    before = dict(mpl.rcParams)
    figure_image_similarity(tables["similarity"])
    figure_stage_similarity(tables["stage_similarity"])
    figure_token_maps(token_table())
    assert dict(mpl.rcParams) == before
