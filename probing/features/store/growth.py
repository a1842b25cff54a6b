"""Create a store's documents and coordinates, and extend them; writing the root document commits each change."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from jaxtyping import UInt8

from probing.features.store.documents import DOCUMENT, digest_of, write_document
from probing.features.store.layout import RUNS, create_arrays, metadata_files
from probing.features.store.leases import Leases
from probing.features.store.lock import locked, remove_unfinished, unfinished_prefix
from probing.features.store.records import file_checksum
from probing.files import UMASK, sentences_for_disk_errors, sync
from probing.paths import AnyPath, is_remote


def create(path: AnyPath, attributes: Mapping[str, Any], items: pd.DataFrame) -> None:
    """Create an empty store; if several processes try at once, one of them succeeds.

    Args:
        path: Folder of the store.
        attributes: Attributes of its root document.
        items: ``item_id``, ``prompt_id`` and ``prompt``, in order.

    Raises:
        FileExistsError: The path is in use.
        UserError: The disk is full or cannot be written.
    """
    if is_used(path):
        raise FileExistsError(path)
    if is_remote(path):
        # Nothing can be renamed there: the root document, written last, makes it a store.
        with Leases(path).alone("creating the store"):
            if (path / DOCUMENT).exists():
                raise FileExistsError(path)
            grow(path, dict(attributes), items, start=0)
        return
    with sentences_for_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(path)
        unfinished = Path(tempfile.mkdtemp(dir=path.parent, prefix=unfinished_prefix(path), suffix=".partial"))
        try:
            with locked(unfinished):
                os.chmod(unfinished, 0o777 & ~UMASK)
                grow(unfinished, dict(attributes), items, start=0)
                sync_tree(unfinished)
                # The rename fails if another process has created the store first.
                os.rename(unfinished, path)
                sync(path.parent)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and path.exists():
                raise FileExistsError(path) from None
            raise
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def is_used(path: AnyPath) -> bool:
    """Return whether there is a store at a path, or something else that is not empty."""
    if is_remote(path):
        # A creation that was killed leaves a beginning without the root document.
        return path.is_file() or (path / DOCUMENT).exists()
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def zarr_place(path: AnyPath) -> AnyPath | str:
    """Return what Zarr opens: a path, or a URL."""
    return str(path) if is_remote(path) else path


def remove_folder(path: AnyPath) -> None:
    """Remove a folder with all it holds; nothing if there is none."""
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():
        path.fs.rm(path.path, recursive=True)  # type: ignore[attr-defined]


def grow(
    path: AnyPath,
    attributes: dict[str, Any],
    items: pd.DataFrame,
    *,
    start: int,
    before: tuple[Sequence[str], Sequence[str], np.ndarray] | None = None,
) -> None:
    """Extend arrays and coordinates to the size in the attributes; the root document, written last, commits it."""
    group = zarr.open_group(zarr_place(path), mode="a" if start or before is not None else "w", zarr_format=3)
    count = start + len(items)
    create_arrays(group, attributes, count)
    ids, prompts = items["item_id"].tolist(), items["prompt_id"].tolist()
    words = digests_of(items)
    write_sigmas(group, attributes["sigmas"])
    if len(items):
        write_items(group, ids, prompts, words, slice(start, count))
    if before is not None:
        ids, prompts = [*before[0], *ids], [*before[1], *prompts]
        words = np.concatenate([before[2], words])
    extents = attributes["extents"] + ([count] if len(items) else [])
    if not is_remote(path):
        (path / RUNS).mkdir(exist_ok=True)
    named = sorted(zip(ids, prompts, strict=True))
    identity = {"items_digest": items_digest(ids, prompts, words), "data_fingerprint": digest_of(named)}
    commit(path, {**attributes, "extents": extents, **identity})


def commit(path: AnyPath, attributes: Mapping[str, Any]) -> None:
    """Write the root document, with digests of the other documents, and its copy."""
    for name in ("item_id", "prompt_id", "prompt_digest", "sigma"):
        sync_tree(path / name)
    documents = {}
    for name in metadata_files(path):
        sync_file(path / name)
        documents[name] = list(file_checksum(path / name))
    whole = {**attributes, "documents": documents}
    write_document(path, whole)
    # The copy from which a damaged root document is restored.
    write_document(path / RUNS, whole)


def write_sigmas(group: zarr.Group, sigmas: Sequence[float]) -> None:
    """Write the coordinate of noise levels."""
    _write(group, "sigma", np.asarray(sigmas, dtype=np.float64), slice(None))


def write_items(
    group: zarr.Group, item_ids: Sequence[str], prompt_ids: Sequence[str], words: np.ndarray, rows: slice
) -> None:
    """Write the coordinates of these rows of items."""
    _write(group, "item_id", np.asarray(item_ids, dtype=object), rows)
    _write(group, "prompt_id", np.asarray(prompt_ids, dtype=object), rows)
    _write(group, "prompt_digest", words, rows)


def _write(group: zarr.Group, name: str, values: np.ndarray, where: slice) -> None:
    array = group[name]
    assert isinstance(array, zarr.Array)
    with zarr.config.set({"array.write_empty_chunks": True}):
        array[where] = values


def items_digest(item_ids: Any, prompt_ids: Any, words: np.ndarray) -> str:
    """Return the digest of all ids and of the words of all prompts."""
    digest = hashlib.blake2b(digest_size=16)
    for texts in (item_ids, prompt_ids):
        for text in texts:
            encoded = str(text).encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
    digest.update(np.ascontiguousarray(words).tobytes())
    return digest.hexdigest()


def digests_of(items: pd.DataFrame) -> UInt8[np.ndarray, "item byte"]:
    """Return the digest of each item's words, from its ``prompt`` or its ``prompt_digest``."""
    if "prompt_digest" in items:
        return np.frombuffer(b"".join(items["prompt_digest"]), np.uint8).reshape(-1, 16)
    return words_digest(items["prompt"])


def words_digest(prompts: Sequence[str] | pd.Series) -> UInt8[np.ndarray, "item byte"]:
    """Return the digest of each prompt's words."""
    texts = [str(prompt) for prompt in prompts]
    digests = {
        text: hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in set(texts)
    }
    return np.frombuffer(b"".join(digests[text] for text in texts), np.uint8).reshape(-1, 16)


def sync_file(path: AnyPath) -> None:
    """Force a file and its folder's list of names onto the disk."""
    if is_remote(path):
        return
    for name in (path, path.parent):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(path: AnyPath) -> None:
    """Force a folder with all it holds onto the disk."""
    if is_remote(path):
        return
    for folder, _, files in os.walk(path):
        for name in [*(os.path.join(folder, file) for file in files), folder]:
            descriptor = os.open(name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
