"""Find what may be wrong with preference data: bad pictures, leaks between splits, shortcuts to the choice."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    # The contracts on imports are checked on this file, not on the stub beside it.
    from probing.preferences.audit import findings, image_stats, run, scan  # noqa: F401

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
