"""Is what can be read also used? Steering and erasing blocks during sampling, beside the reward curve."""

from probing.analysis.causal.directions import RANDOM, RANDOM_INIT, TRAINED, Direction, directions, random_direction
from probing.analysis.causal.effects import dose_responses, erasure_effects, rank_correlations, steering_effects
from probing.analysis.causal.erasers import Erased, erasers
from probing.analysis.causal.generation import Change, GenerationSettings, Judge, generate

__all__ = [
    "RANDOM",
    "RANDOM_INIT",
    "TRAINED",
    "Change",
    "Direction",
    "Erased",
    "GenerationSettings",
    "Judge",
    "directions",
    "dose_responses",
    "erasers",
    "erasure_effects",
    "generate",
    "random_direction",
    "rank_correlations",
    "steering_effects",
]
