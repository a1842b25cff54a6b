"""Weights, cards and generated pictures of dit-probing's testbed."""
