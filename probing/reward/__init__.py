"""Rewards: heads that are kept, and score pictures and latents with their backbone."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    # The contracts on imports are checked on this file, not on the stub beside it.
    from probing.reward import latent_reward, presets, training  # noqa: F401

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
