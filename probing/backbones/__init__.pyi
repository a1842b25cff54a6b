from .architecture import Architecture
from .base import Backbone, BackboneSpec, Conditioning, Entry, Family, Layout, Streams
from .devices import compute_dtype, compute_dtype_name, device_type, pick_compute_dtype, pick_device
from .families import register_family
from .identity import part_digests, revision_of
from .loading import load_backbone
from .registry import model_names, resolve

__all__ = [
    "Architecture",
    "Backbone",
    "BackboneSpec",
    "Conditioning",
    "Entry",
    "Family",
    "Layout",
    "Streams",
    "compute_dtype",
    "compute_dtype_name",
    "device_type",
    "load_backbone",
    "model_names",
    "part_digests",
    "pick_compute_dtype",
    "pick_device",
    "register_family",
    "resolve",
    "revision_of",
]
