"""Probe what frozen text-to-image transformers know of human preferences, block by block."""

import os

# Transformers warns at import of image processors that nothing here uses.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
