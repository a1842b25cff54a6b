"""Scoring rules, intervals over prompts, tests, planning, calibration. Arrays in, numbers out."""

from probing.statistics._auroc import Auroc, auroc
from probing.statistics._bootstrap import RESAMPLES, resampled_means
from probing.statistics._calibration import Reliability, fit_temperature, log2_losses, reliability, usable_information
from probing.statistics._confidence_set import ConfidenceSet, best_candidates
from probing.statistics._corrections import LEVEL, holm
from probing.statistics._crossed import crossed_interval
from probing.statistics._equivalence import equivalent
from probing.statistics._groups import GroupSums, Interval, sums_by_group
from probing.statistics._means import mean_interval
from probing.statistics._paired import Difference, mean_change, paired_difference, sign_flip_p_value
from probing.statistics._power import prompts_needed, variance_of_difference
from probing.statistics._rules import RULES, Rule, Score, ScoredPairs, score
from probing.statistics._scoring import TIE_RULES, outcomes
from probing.statistics._segmentation import MAX_SEGMENTS, SEGMENT_RESAMPLES, Segmentations, find_segments, stationary
from probing.statistics._shares import share_interval

__all__ = [
    "LEVEL",
    "MAX_SEGMENTS",
    "RESAMPLES",
    "RULES",
    "SEGMENT_RESAMPLES",
    "TIE_RULES",
    "Auroc",
    "ConfidenceSet",
    "Difference",
    "GroupSums",
    "Interval",
    "Reliability",
    "Rule",
    "Score",
    "ScoredPairs",
    "Segmentations",
    "auroc",
    "best_candidates",
    "crossed_interval",
    "equivalent",
    "find_segments",
    "fit_temperature",
    "holm",
    "log2_losses",
    "mean_change",
    "mean_interval",
    "outcomes",
    "paired_difference",
    "prompts_needed",
    "reliability",
    "resampled_means",
    "score",
    "share_interval",
    "sign_flip_p_value",
    "stationary",
    "sums_by_group",
    "usable_information",
    "variance_of_difference",
]
