"""Similarity of blocks, and their stages."""

from probing.analysis.similarity.experiment import (
    SimilaritySettings,
    describe_similarity,
    identify_similarity,
    measure_similarity,
    plan_similarity,
    run_similarity,
    tables_similarity,
)
from probing.analysis.similarity.report import report_similarity
from probing.analysis.similarity.stage_table import blocks_of_stages, select_stages
from probing.analysis.similarity.stages import find_stages, stage_similarity
from probing.analysis.similarity.tables import similarity_by_prompt, similarity_table

__all__ = [
    "SimilaritySettings",
    "blocks_of_stages",
    "describe_similarity",
    "find_stages",
    "identify_similarity",
    "measure_similarity",
    "plan_similarity",
    "report_similarity",
    "run_similarity",
    "select_stages",
    "similarity_by_prompt",
    "similarity_table",
    "stage_similarity",
    "tables_similarity",
]
