"""Who chose what: preference data as tables."""

from probing.preferences.data import PreferenceData
from probing.preferences.images import prepare
from probing.preferences.registry import load

__all__ = ["PreferenceData", "load", "prepare"]
