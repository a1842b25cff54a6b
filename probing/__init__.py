"""Probe what frozen text-to-image transformers know of human preferences, block by block."""
