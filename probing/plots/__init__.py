"""Figures: a tidy table in, matplotlib out. Nothing here shows, or writes but :func:`save_figure`."""

from probing.plots.comparisons import figure_comparisons, plot_comparisons
from probing.plots.pairs import figure_pairs
from probing.plots.reward_curve import figure_reward_curves, plot_reward_curve
from probing.plots.save import read_table, save_figure

__all__ = [
    "figure_comparisons",
    "figure_pairs",
    "figure_reward_curves",
    "plot_comparisons",
    "plot_reward_curve",
    "read_table",
    "save_figure",
]
