"""Figures: a tidy table in, matplotlib figures out. Nothing here opens a window; only :func:`save_figure` writes."""

from probing.plots.adaptation import figure_adaptation, figure_adaptation_curves, plot_adaptation, plot_adapted_curve
from probing.plots.causal import figure_causal_curve, figure_dose_response, plot_dose_response, plot_reading, plot_use
from probing.plots.combinations import figure_combinations, plot_gains, plot_pairs_of_blocks
from probing.plots.comparisons import figure_comparisons, plot_comparisons
from probing.plots.controls import figure_controls, plot_controls
from probing.plots.curves import NothingToDraw
from probing.plots.factorial import figure_factorial, figure_factorial_effects, plot_effects, plot_factorial
from probing.plots.heat_maps import figure_faults, figure_heat_map_examples, figure_heat_maps, plot_heat_maps
from probing.plots.noise import figure_noise, figure_noise_draws, plot_gain_of_many, plot_noise, plot_redraws
from probing.plots.pairs import figure_pairs
from probing.plots.pictures import figure_pictures
from probing.plots.policy import (
    figure_hacking_watch,
    figure_policy,
    figure_policy_samples,
    plot_hacking_watch,
    plot_policy,
)
from probing.plots.reward_curve import figure_headline, figure_reward_curves, plot_reward_curve
from probing.plots.save import save_figure
from probing.plots.scaling import figure_depth_curves, figure_scaling, plot_depth_curves, plot_published, plot_scaling
from probing.plots.similarity import figure_image_similarity, figure_trajectory_similarity, plot_similarity
from probing.plots.stages import figure_stage_similarity, mark_stages, plot_stage_similarity
from probing.plots.tokens import figure_token_maps, plot_token_map

__all__ = [
    "NothingToDraw",
    "figure_adaptation",
    "figure_adaptation_curves",
    "figure_causal_curve",
    "figure_combinations",
    "figure_comparisons",
    "figure_controls",
    "figure_depth_curves",
    "figure_dose_response",
    "figure_factorial",
    "figure_factorial_effects",
    "figure_faults",
    "figure_hacking_watch",
    "figure_headline",
    "figure_heat_map_examples",
    "figure_heat_maps",
    "figure_image_similarity",
    "figure_noise",
    "figure_noise_draws",
    "figure_pairs",
    "figure_pictures",
    "figure_policy",
    "figure_policy_samples",
    "figure_reward_curves",
    "figure_scaling",
    "figure_stage_similarity",
    "figure_token_maps",
    "figure_trajectory_similarity",
    "mark_stages",
    "plot_adaptation",
    "plot_adapted_curve",
    "plot_comparisons",
    "plot_controls",
    "plot_depth_curves",
    "plot_dose_response",
    "plot_effects",
    "plot_factorial",
    "plot_gain_of_many",
    "plot_gains",
    "plot_hacking_watch",
    "plot_heat_maps",
    "plot_noise",
    "plot_pairs_of_blocks",
    "plot_policy",
    "plot_published",
    "plot_reading",
    "plot_redraws",
    "plot_reward_curve",
    "plot_scaling",
    "plot_similarity",
    "plot_stage_similarity",
    "plot_token_map",
    "plot_use",
    "save_figure",
]
