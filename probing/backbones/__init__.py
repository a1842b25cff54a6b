"""Frozen text-to-image transformers with their VAE and text encoders."""

from probing.backbones.architecture import Architecture
from probing.backbones.identity import part_digests, revision_of
from probing.backbones.loading import COMPUTE_DTYPES, load_backbone, pick_compute_dtype, pick_device
from probing.backbones.registry import BackboneSpec, model_names, resolve
from probing.backbones.sd3 import Conditioning, SD3Backbone

__all__ = [
    "COMPUTE_DTYPES",
    "Architecture",
    "BackboneSpec",
    "Conditioning",
    "SD3Backbone",
    "load_backbone",
    "model_names",
    "part_digests",
    "pick_compute_dtype",
    "pick_device",
    "resolve",
    "revision_of",
]
