"""Frozen text-to-image transformers with their VAE and text encoders."""

from probing.backbones.architecture import Architecture
from probing.backbones.base import Backbone, BackboneSpec, Conditioning, Entry, Family, Layout, Streams
from probing.backbones.families import register_family
from probing.backbones.identity import part_digests, revision_of
from probing.backbones.loading import COMPUTE_DTYPES, load_backbone, pick_compute_dtype, pick_device
from probing.backbones.registry import model_names, resolve

__all__ = [
    "COMPUTE_DTYPES",
    "Architecture",
    "Backbone",
    "BackboneSpec",
    "Conditioning",
    "Entry",
    "Family",
    "Layout",
    "Streams",
    "load_backbone",
    "model_names",
    "part_digests",
    "pick_compute_dtype",
    "pick_device",
    "register_family",
    "resolve",
    "revision_of",
]
