"""Scoring rules, intervals over prompts, tests, planning, calibration. Arrays in, numbers out."""

from probing.statistics._auroc import Auroc, auroc
from probing.statistics._bootstrap import (
    Difference,
    GroupSums,
    Interval,
    cluster_bootstrap,
    paired_difference,
    resampled_means,
    sums_by_group,
)
from probing.statistics._calibration import Reliability, fit_temperature, log2_losses, reliability, usable_information
from probing.statistics._confidence_set import ConfidenceSet, best_candidates
from probing.statistics._corrections import LEVEL, holm
from probing.statistics._equivalence import Equivalence, equivalence
from probing.statistics._mcnemar import McNemar, clustered_mcnemar
from probing.statistics._power import prompts_needed, variance_of_difference
from probing.statistics._rules import RULES, Rule, Score, ScoredPairs, score
from probing.statistics._scoring import TIE_RULES, outcomes
from probing.statistics._segmentation import MAX_SEGMENTS, SEGMENT_RESAMPLES, Segmentations, find_segments, stationary

__all__ = [
    "LEVEL",
    "MAX_SEGMENTS",
    "RULES",
    "SEGMENT_RESAMPLES",
    "TIE_RULES",
    "Auroc",
    "ConfidenceSet",
    "Difference",
    "Equivalence",
    "GroupSums",
    "Interval",
    "McNemar",
    "Reliability",
    "Rule",
    "Score",
    "ScoredPairs",
    "Segmentations",
    "auroc",
    "best_candidates",
    "cluster_bootstrap",
    "clustered_mcnemar",
    "equivalence",
    "find_segments",
    "fit_temperature",
    "holm",
    "log2_losses",
    "outcomes",
    "paired_difference",
    "prompts_needed",
    "reliability",
    "resampled_means",
    "score",
    "stationary",
    "sums_by_group",
    "usable_information",
    "variance_of_difference",
]
