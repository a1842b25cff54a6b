"""Check the types of the columns of preference data, alike for every format and every reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from probing.errors import UserError, shown

Kind = Literal["prompt", "path", "id", "label", "number", "truth", "picture", "plain", "nested"]
EXPECTED: dict[Kind, str] = {
    "prompt": "prompts are strings",
    "path": "pictures are given by their paths, which are strings",
    "id": "ids are strings or whole numbers",
    "label": "splits, facets and models are strings",
    "number": "expected numbers",
    "truth": "expected true or false",
    "picture": "expected the bytes of a picture",
    "nested": "expected fields or a list, or their JSON text",
    "plain": "columns hold strings, numbers, true or false, or dates",
}
TEXTS: tuple[Kind, ...] = ("prompt", "path", "id", "label")
"""Kinds that become strings, exactly as written."""
MOST_COLUMNS = 1_000
"""Largest number of columns: real tables of pairs have tens; thousands are a transposed table or a feature file."""
_GAP_TEXTS = ("", "NA", "NaN", "nan", "null", "None")
_NUMBER = r"^\s*[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|(?i:inf|infinity))\s*$"
"""A number without leading zeros: ``007`` is a code. Infinity is a number here, and refused afterwards."""
_WHOLE_NUMBER = r"^\s*[+-]?(0|[1-9][0-9]{0,17})\s*$"
_LONG_NUMBER = r"^\s*[+-]?[0-9]{19,}\s*$"
"""A whole number that neither 64 bits nor a float represent exactly: a code too."""
_TRUTH = r"^\s*(true|True|TRUE|false|False|FALSE)\s*$"


def check_type(where: object, column: str, actual: pa.DataType, kind: Kind) -> None:
    """Refuse a column whose type does not fit its kind, without reading its values.

    Args:
        where: The file or data set, for the message.
        column: The column's name.
        actual: Its type.
        kind: The expected kind.

    Raises:
        UserError: The message names the column, its type, and the expected type.
    """
    if not _fits(actual, kind):
        raise UserError(f"The column {column} of {where} is of type {shown(str(actual))[1:-1]}; {EXPECTED[kind]}.")


def _fits(actual: pa.DataType, kind: Kind) -> bool:
    types = pa.types
    if types.is_dictionary(actual):
        return _fits(actual.value_type, kind)
    if kind == "nested":
        return (
            types.is_null(actual) or types.is_nested(actual) or types.is_string(actual) or types.is_large_string(actual)
        )
    if kind == "picture":
        # A list of one picture, too.
        actual = actual.value_type if types.is_list(actual) or types.is_large_list(actual) else actual
        is_struct = types.is_struct(actual) and actual.get_field_index("bytes") >= 0
        data = actual.field("bytes").type if is_struct else actual
        return types.is_binary(data) or types.is_large_binary(data)
    text = types.is_string(actual) or types.is_large_string(actual) or types.is_string_view(actual)
    whole = types.is_integer(actual)
    number = whole or types.is_floating(actual) or types.is_decimal(actual)
    if types.is_null(actual) or text:
        return True
    if kind == "id":
        return whole
    if kind == "number":
        return number
    if kind == "truth":
        return number or types.is_boolean(actual)
    return kind == "plain" and (
        number or types.is_boolean(actual) or types.is_timestamp(actual) or types.is_date(actual)
    )


def bring_to_kind(values: pa.ChunkedArray, kind: Kind) -> pa.ChunkedArray:
    """Convert a column whose type was checked: texts and ids to strings, decimals to floats, dates to times."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if kind in TEXTS:
        return values.cast(pa.large_string())
    if pa.types.is_string_view(values.type):
        return values.cast(pa.large_string())
    if pa.types.is_decimal(values.type) or pa.types.is_float16(values.type):
        return values.cast(pa.float64())
    if pa.types.is_date(values.type):
        return values.cast(pa.timestamp("ms"))
    if kind == "number" and pa.types.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py():
        # As text, "nan" differs from a gap until the caller decides what it means.
        return values.cast(pa.float64()).cast(pa.large_string())
    return values


def infer_type(values: list[str]) -> pd.Series:
    """Convert the texts of a CSV column to numbers or to true and false if all can be converted.

    Words such as ``NA`` are gaps among numbers, and text among texts.
    """
    texts = pa.array(values, pa.large_string())
    gaps = pc.is_in(texts, value_set=pa.array(_GAP_TEXTS, pa.large_string()))
    rest = pc.filter(texts, pc.invert(gaps))
    has_gaps = len(rest) < len(texts)
    if len(rest) == 0:
        return pd.Series(np.full(len(values), np.nan))
    if pc.all(pc.match_substring_regex(rest, _TRUTH)).as_py():
        words = {word: word.strip().casefold() == "true" for word in set(rest.to_pylist())}
        return pd.Series([words.get(value) for value in values], dtype=object if has_gaps else bool)
    if not has_gaps and pc.all(pc.match_substring_regex(texts, _WHOLE_NUMBER)).as_py():
        return pd.Series([int(value) for value in values], dtype=np.int64)
    long = pc.any(pc.match_substring_regex(rest, _LONG_NUMBER)).as_py()
    if not long and pc.all(pc.match_substring_regex(rest, _NUMBER)).as_py():
        return pd.Series(
            [np.nan if gap else float(value) for value, gap in zip(values, gaps.to_pylist(), strict=True)],
            dtype=np.float64,
        )
    empty = pc.equal(texts, "")
    return pc.if_else(empty, None, texts).to_pandas()


def numbers(column: pd.Series, records: pd.Series, *, gaps: tuple[str, ...] = _GAP_TEXTS) -> pd.Series:
    """Read finite numbers, also from text; gaps stay gaps.

    Args:
        column: Numbers, or their texts, with or without spaces around.
        records: The name of each record, for messages.
        gaps: Texts that mean a gap.

    Raises:
        UserError: A value is no number, or not finite; the message names the record.
    """
    if not pd.api.types.is_bool_dtype(column.dtype) and pd.api.types.is_numeric_dtype(column.dtype):
        read = column
    else:
        values = column.astype(object).where(column.notna(), None).tolist()
        # Infinity also marks a value that is no number: both are refused.
        read = pd.Series([_number(value, gaps) for value in values], index=column.index, dtype=np.float64)
    wrong = np.isinf(read.to_numpy(dtype=np.float64, na_value=np.nan))
    if wrong.any():
        record = int(np.flatnonzero(wrong)[0])
        raise UserError(
            f"Record {shown(records.iloc[record])} has the {column.name} {shown(column.iloc[record])}, which is no "
            f"number; give a finite number{', or leave it empty' if '' in gaps else ''}."
        )
    return read


def _number(value: object, gaps: tuple[str, ...]) -> float:
    if value is None or (isinstance(value, str) and value in gaps):
        return np.nan
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return np.inf
    if isinstance(value, str) and not value.strip().isascii():
        return np.inf
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return np.inf
    # Python also reads "nan" and "1_000".
    is_python_only = isinstance(value, str) and (result != result or "_" in value)
    return np.inf if is_python_only else result


def check_sides(name: str, table: pd.DataFrame) -> list[tuple[str, str]]:
    """Find the columns that describe the two sides of a pair, which are exchanged together.

    Raises:
        UserError: A column's name is repeated, a side's column has no partner, or the two have different types.
    """
    columns = [str(column) for column in table.columns]
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise UserError(f"{name} has the column {shown(repeated[0])} twice; name each column once.")
    partner_of: Mapping[str, str] = {"_first": "_second", "_second": "_first"}
    for column in columns:
        for end, other in partner_of.items():
            if column.endswith(end) and f"{column[: -len(end)]}{other}" not in columns:
                raise UserError(
                    f"{name} has the column {shown(column)} without {shown(column[: -len(end)] + other)}; the sides of "
                    f"a pair are described by both, or by neither."
                )
    sides = [("first", "second")]
    sides += [(c, f"{c.removesuffix('_first')}_second") for c in columns if c.endswith("_first")]
    for first, second in sides:
        one, other = (_rough_type(table[side]) for side in (first, second))
        if one and other and one != other:
            raise UserError(
                f"{name} has {one} in the column {shown(first)} and {other} in {shown(second)}; give both sides one "
                f"type."
            )
    return sides


def _rough_type(column: pd.Series) -> str:
    """Name a column's type; empty if it has only gaps."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.categories.to_series()
    if column.isna().all():
        return ""
    if pd.api.types.is_bool_dtype(column.dtype):
        return "true or false"
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "numbers"
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return "dates"
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    return {"string": "text", "boolean": "true or false", "integer": "numbers", "floating": "numbers"}.get(
        inferred, inferred
    )
