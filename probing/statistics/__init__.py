"""Scoring rules, intervals over prompts, corrections. Arrays in, numbers out."""

from probing.statistics.bootstrap import Difference, Interval, cluster_bootstrap, paired_difference
from probing.statistics.corrections import holm
from probing.statistics.rules import RULES, Score, ScoredPairs, score
from probing.statistics.scoring import TIE_RULES, outcomes

__all__ = [
    "RULES",
    "TIE_RULES",
    "Difference",
    "Interval",
    "Score",
    "ScoredPairs",
    "cluster_bootstrap",
    "holm",
    "outcomes",
    "paired_difference",
    "score",
]
