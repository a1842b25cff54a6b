from .latent_reward import LatentReward, Scores
from .manifest import Manifest
from .presets import PRESETS, Preset
from .training import HeadSettings, train_reward

__all__ = ["PRESETS", "HeadSettings", "LatentReward", "Manifest", "Preset", "Scores", "train_reward"]
