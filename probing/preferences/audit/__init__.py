"""Find what may be wrong with preference data: bad pictures, leaks between splits, shortcuts to the choice."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
