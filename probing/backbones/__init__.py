"""Frozen text-to-image transformers with their VAE and text encoders."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    # The contracts on imports are checked on this file, not on the stub beside it.
    from probing.backbones import architecture, base, devices, families, identity, loading, registry  # noqa: F401

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
