"""Scoring rules, intervals over prompts, tests, power, calibration. Arrays in, numbers out."""

from probing.statistics.auroc import Auroc, auroc
from probing.statistics.bootstrap import Difference, Interval, cluster_bootstrap, paired_difference
from probing.statistics.calibration import Reliability, fit_temperature, log2_losses, reliability, usable_information
from probing.statistics.confidence_set import ConfidenceSet, best_candidates
from probing.statistics.corrections import LEVEL, benjamini_hochberg, holm
from probing.statistics.equivalence import Equivalence, equivalence
from probing.statistics.mcnemar import McNemar, clustered_mcnemar
from probing.statistics.power import pairs_needed, power_of, prompts_needed, variance_of_difference
from probing.statistics.rules import RULES, Score, ScoredPairs, score
from probing.statistics.scoring import TIE_RULES, outcomes

__all__ = [
    "LEVEL",
    "RULES",
    "TIE_RULES",
    "Auroc",
    "ConfidenceSet",
    "Difference",
    "Equivalence",
    "Interval",
    "McNemar",
    "Reliability",
    "Score",
    "ScoredPairs",
    "auroc",
    "benjamini_hochberg",
    "best_candidates",
    "cluster_bootstrap",
    "clustered_mcnemar",
    "equivalence",
    "fit_temperature",
    "holm",
    "log2_losses",
    "outcomes",
    "paired_difference",
    "pairs_needed",
    "power_of",
    "prompts_needed",
    "reliability",
    "score",
    "usable_information",
    "variance_of_difference",
]
