"""Unpack archives of pictures: verified, bounded, and whole or not at all."""

from probing.preferences.archives.unpacking import unpack

__all__ = ["unpack"]
