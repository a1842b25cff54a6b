"""Read and write Zarr group documents with a digest of their attributes, which reveals an edit or a flipped bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from probing.errors import UserError
from probing.files import read_bytes, write_bytes
from probing.paths import AnyPath

DOCUMENT = "zarr.json"
_DIGEST = "seal"
"""Attribute with the digest of the others."""


def digest_of(value: Any) -> str:
    """Return 32 hex characters of the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_document(folder: AnyPath, attributes: Mapping[str, Any]) -> None:
    """Write a group's ``zarr.json``, whole or not at all."""
    write_bytes(folder / DOCUMENT, document_bytes(attributes))


def document_bytes(attributes: Mapping[str, Any]) -> bytes:
    """Return the bytes of a group's document; the same attributes always give the same bytes."""
    attributes = _without_digest(attributes)
    document = {"zarr_format": 3, "node_type": "group", "attributes": {**attributes, _DIGEST: digest_of(attributes)}}
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def read_document(folder: AnyPath) -> dict[str, Any]:
    """Read a group's attributes.

    Raises:
        UserError: The file is missing, is no group's document, or does not match its digest.
    """
    path = folder / DOCUMENT
    try:
        document = json.loads(read_bytes(path))
        attributes = document["attributes"]
        group = document["zarr_format"] == 3 and document["node_type"] == "group" and isinstance(attributes, dict)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; python -m probing.store check lists what is left of the store.") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({_short(error)}); it is no document of a Zarr v3 group.") from error
    if not group:
        raise UserError(f"{path} is no document of a Zarr v3 group.")
    content = _without_digest(attributes)
    # A document of schema 1 has no digest.
    if _DIGEST in attributes and attributes[_DIGEST] != digest_of(content):
        raise UserError(
            f"{path} was edited or damaged: its digest does not match; python -m probing.store repair restores it "
            f"from its copy."
        )
    return content


def is_canonical(folder: AnyPath) -> bool:
    """Return whether a document has exactly the bytes that :func:`write_document` writes for its attributes."""
    return read_bytes(folder / DOCUMENT) == document_bytes(read_document(folder))


def _without_digest(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name != _DIGEST}


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
