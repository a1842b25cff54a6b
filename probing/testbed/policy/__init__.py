"""Policies trained on rewards by Flow-GRPO, scored by the judge; run by ``python -m probing.testbed.policy``."""
