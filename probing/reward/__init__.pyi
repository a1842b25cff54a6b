from .adapt_settings import AdaptSettings
from .adapter import AdapterSettings
from .adapting import adapt
from .latent_reward import LatentReward, Scores
from .manifest import Manifest
from .presets import PRESETS, Preset
from .training import HeadSettings, train_reward

__all__ = [
    "PRESETS",
    "AdaptSettings",
    "AdapterSettings",
    "HeadSettings",
    "LatentReward",
    "Manifest",
    "Preset",
    "Scores",
    "adapt",
    "train_reward",
]
