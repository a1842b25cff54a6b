from .adapt_settings import AdaptSettings
from .adapter import AdapterSettings
from .adapting import adapt
from .gradient import RewardGradient
from .latent_reward import LatentReward, Scores
from .manifest import Manifest
from .presets import PRESETS, Preset
from .training import HeadSettings, train_reward
from .watch import HackingWatch, WatchReport

__all__ = [
    "PRESETS",
    "AdaptSettings",
    "AdapterSettings",
    "HackingWatch",
    "HeadSettings",
    "LatentReward",
    "Manifest",
    "Preset",
    "RewardGradient",
    "Scores",
    "WatchReport",
    "adapt",
    "train_reward",
]
