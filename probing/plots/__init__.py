"""Figures: a tidy table in, matplotlib out. Nothing here shows, or writes but :func:`save_figure`."""

from probing.plots.comparisons import figure_comparisons, plot_comparisons
from probing.plots.pairs import figure_pairs
from probing.plots.reward_curve import figure_reward_curves, plot_reward_curve
from probing.plots.save import read_table, save_figure
from probing.plots.similarity import figure_image_similarity, figure_trajectory_similarity, plot_similarity
from probing.plots.stages import figure_stage_similarity, mark_stages, plot_stage_similarity
from probing.plots.tokens import figure_token_maps, plot_token_map

__all__ = [
    "figure_comparisons",
    "figure_image_similarity",
    "figure_pairs",
    "figure_reward_curves",
    "figure_stage_similarity",
    "figure_token_maps",
    "figure_trajectory_similarity",
    "mark_stages",
    "plot_comparisons",
    "plot_reward_curve",
    "plot_similarity",
    "plot_stage_similarity",
    "plot_token_map",
    "read_table",
    "save_figure",
]
