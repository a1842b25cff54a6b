"""Tests run offline and on the CPU."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

from hypothesis import settings

# Drawing a scene or fitting a probe takes longer than hypothesis' default of 200 ms on a busy machine.
settings.register_profile("project", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("project")

pytest_plugins = ["tests.tiny_sd3"]
