"""Read and write the table of pairs next to a store; name and identity link it to the store."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from probing.errors import UserError
from probing.paths import AnyPath, openable
from probing.table_files import read_metadata, read_parquet, write_parquet


def write_pairs(path: AnyPath, pairs: pd.DataFrame, identity: str) -> bool:
    """Write the pairs of a store, unless the table is already the same; return whether it was written.

    Args:
        path: The table.
        pairs: One row a pair.
        identity: Identity of the store.

    Raises:
        UserError: The disk is full or cannot be written.
    """
    # With the index and the types of the table on disk.
    table = pa.Table.from_pandas(pairs, preserve_index=False).replace_schema_metadata()
    metadata = {"store": identity, "pairs": fingerprint(table), "pyarrow": pa.__version__}
    if path.is_file() and all(read_metadata(path).get(name) == metadata[name] for name in ("store", "pairs")):
        try:
            read_pairs(path, identity)
        except UserError:
            pass
        else:
            return False
    write_parquet(path, pairs, metadata)
    return True


def read_pairs(path: AnyPath, identity: str) -> pd.DataFrame:
    """Read the pairs of a store.

    Raises:
        UserError: They are missing or damaged, or belong to another store.
    """
    if not path.is_file():
        raise UserError(f"There are no pairs at {path}; the same probing.extract command writes them there.")
    try:
        table = pq.read_table(openable(path), page_checksum_verification=True)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} is damaged ({reason}); the same probing.extract command writes it again.") from error
    metadata = read_metadata(path)
    if metadata.get("store") != identity:
        raise UserError(
            f"{path} has the pairs of another store; the same probing.extract command writes those of this one."
        )
    if metadata.get("pairs") != fingerprint(table):
        raise UserError(
            f"{path} was edited or damaged: its digest does not match; change labels in the data that were extracted, "
            f"and give the same probing.extract command: it writes the pairs anew and computes nothing again."
        )
    return table.replace_schema_metadata().to_pandas()


def read_legacy_pairs(store: AnyPath, item_ids: Collection[str]) -> pd.DataFrame | None:
    """Read the pairs next to a store of schema 1; None if there are none.

    The table's name replaces the store's suffix, so stores whose names differ only after the last dot share a table.

    Raises:
        UserError: The table is damaged, or may belong to another store.
    """
    path = store.with_suffix(".pairs.parquet")
    if not path.is_file() or read_metadata(path):
        return None
    sharing = sorted(
        other.name
        for other in store.parent.iterdir()
        if other.is_dir() and other.name != store.name and other.with_suffix(".pairs.parquet") == path
    )
    pairs = read_parquet(path, "python -m probing.extract")
    unknown = {*pairs.get("first", ["?"]), *pairs.get("second", ["?"])} - set(item_ids)
    if sharing or unknown:
        reason = f"{', '.join(sharing)} shares it" if sharing else f"{store.name} lacks its item {min(unknown)!r}"
        raise UserError(
            f"{path} may have the pairs of another store: {reason}; move it away, and extract the data of this "
            f"store again to another --output."
        )
    return pairs


def is_as_written(path: AnyPath) -> bool:
    """Return whether a Parquet file has exactly the bytes that this version of PyArrow writes for its rows.

    A file of another version passes: :func:`read_pairs` checks its content.
    """
    content = path.read_bytes()
    version = read_metadata(path).get("pyarrow")
    if f"parquet-cpp-arrow version {version}".encode() not in content:
        return False
    if version != pa.__version__:
        return True
    file = pq.ParquetFile(pa.BufferReader(content))
    sink = pa.BufferOutputStream()
    pq.write_table(file.read(), sink)
    return sink.getvalue().to_pybytes() == content


def fingerprint(table: pa.Table) -> str:
    """Hash names, types and values of a table; chunks and dictionaries are ignored."""
    digest = hashlib.blake2b(str(table.num_rows).encode(), digest_size=16)
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        digest.update(f"\x1f{name}\x1f{_kind(column.type)}\x1f".encode())
        _update(digest, column)
    return digest.hexdigest()


def _update(digest: Any, column: pa.Array) -> None:
    valid = np.asarray(column.is_valid())
    digest.update(np.packbits(valid).tobytes())
    if _is_text(column.type):
        filled = pc.fill_null(column.cast(pa.large_string()), "")
        digest.update(np.asarray(pc.binary_length(filled)).tobytes())
        offsets = np.frombuffer(filled.buffers()[1], np.int64)[filled.offset : filled.offset + len(filled) + 1]
        if len(filled) and (content := filled.buffers()[2]) is not None:
            digest.update(memoryview(content)[int(offsets[0]) : int(offsets[-1])])
    elif pa.types.is_boolean(column.type):
        digest.update(np.packbits(np.asarray(pc.fill_null(column, False))).tobytes())
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        digest.update(np.ascontiguousarray(pc.fill_null(column, 0)).tobytes())
    else:
        # Few columns have lists or times.
        digest.update(repr(column.to_pylist()).encode())


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _kind(kind: pa.DataType) -> str:
    return "text" if _is_text(kind) else str(kind)
