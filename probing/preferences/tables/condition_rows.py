"""Find the rows of a table that fulfil a condition.

A gap fulfils no comparison, and no negation of one: a comparison with a gap is unknown (Kleene's three-valued logic),
and rows for which the whole condition is unknown are left out.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from probing.errors import UserError, shown
from probing.preferences.tables.condition import (
    Comparison,
    Condition,
    Joined,
    Literal,
    Membership,
    Name,
    Not,
    Value,
    parse,
)

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_COMPARE_NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_JOIN: dict[str, Callable[[Any, Any], Any]] = {"&": pc.and_kleene, "|": pc.or_kleene}
_EXPECTED = {
    "text": "text in quotes",
    "number": "a number",
    "truth": "true or false",
    "date": "a date in quotes, such as '2024-01-31'",
}
_EMPTY = "gap"
"""Kind of a column without any value: it can be compared with all types, and fulfils nothing."""


def rows_where(table: pd.DataFrame, text: str) -> np.ndarray:
    """Find the rows that fulfil a condition.

    Args:
        table: The condition can name its columns.
        text: The condition, in the grammar of :mod:`probing.preferences.tables.condition`.

    Returns:
        True where the condition holds, (row,).

    Raises:
        UserError: The condition cannot be read, names an unknown column, or compares things of two types.
    """
    condition = parse(text, list(map(str, table.columns)))

    @functools.cache
    def column(name: str) -> pa.Array:
        values: pd.Series = table[name]
        return _values_of(name, values)

    holds = _evaluate(condition, column)
    return np.asarray(pc.fill_null(holds, False).to_numpy(zero_copy_only=False), dtype=bool)


def _evaluate(condition: Condition, column: Callable[[str], pa.Array]) -> pa.Array:
    if isinstance(condition, Not):
        return pc.invert(_evaluate(condition.part, column))
    if isinstance(condition, Joined):
        return functools.reduce(_JOIN[condition.operator], (_evaluate(part, column) for part in condition.parts))
    if isinstance(condition, Membership):
        comparisons = [Comparison(condition.column, "==", Literal(value)) for value in condition.values]
        return functools.reduce(pc.or_kleene, (_compare(one, column) for one in comparisons))
    return _compare(condition, column)


def _compare(comparison: Comparison, column: Callable[[str], pa.Array]) -> pa.Array:
    names = [side.column for side in (comparison.left, comparison.right) if isinstance(side, Name)]
    values = {name: column(name) for name in names}
    kinds = {name: _kind(values[name].type) for name in names}
    if _EMPTY in kinds.values():
        return pa.nulls(len(values[names[0]]), pa.bool_())
    kind = kinds[names[0]]
    if len(names) == 2 and kinds[names[1]] != kind:
        raise UserError(
            f"The condition compares the columns {shown(names[0])} ({kind}) and {shown(names[1])} ({kinds[names[1]]}); "
            f"compare columns of one type."
        )
    if kind == "truth" and comparison.operator not in ("==", "!="):
        raise UserError(f"The column {shown(names[0])} is true or false; compare it by == or !=.")
    left, right = (
        values[side.column] if isinstance(side, Name) else _scalar(names[0], kind, side.value, values[names[0]].type)
        for side in (comparison.left, comparison.right)
    )
    if kind == "number":
        return _compare_numbers(comparison.operator, left, right)
    return _COMPARE[comparison.operator](left, right)


def _compare_numbers(name: str, left: Any, right: Any) -> pa.Array:
    """Compare by NumPy: Arrow refuses to compare large whole numbers with fractions, or signed with unsigned ones."""
    columns = [side for side in (left, right) if isinstance(side, pa.Array)]
    gaps = functools.reduce(np.logical_or, (side.is_null().to_numpy(zero_copy_only=False) for side in columns))
    left, right = (
        side.fill_null(0).to_numpy(zero_copy_only=False) if isinstance(side, pa.Array) else side
        for side in (left, right)
    )
    return pa.array(_COMPARE_NUMBERS[name](left, right), pa.bool_(), mask=gaps)


def _values_of(name: str, column: pd.Series) -> pa.Array:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    try:
        values = pa.array(column, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise UserError(f"The column {shown(name)} holds values of several types and cannot be compared.") from None
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_timestamp(values.type):
        # Without a time zone, times are UTC.
        values = values.cast(pa.timestamp("us", tz="UTC"), safe=False)
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    if _kind(values.type) == "":
        raise UserError(f"The column {shown(name)} holds {shown(str(values.type))}, which cannot be compared.")
    return values


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    if pa.types.is_boolean(kind):
        return "truth"
    if pa.types.is_timestamp(kind):
        return "date"
    return _EMPTY if pa.types.is_null(kind) else ""


def _scalar(name: str, kind: str, value: Value, target: pa.DataType) -> Any:
    """Convert a value of the condition to a column's type."""
    if kind == "truth" and isinstance(value, bool):
        return pa.scalar(value)
    if kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        # 1e3 is exactly 1000 when compared with whole numbers.
        return int(value) if value == value // 1 and abs(value) < 2**63 else value
    if kind == "text" and isinstance(value, str):
        return pa.scalar(value, target)
    if kind == "date" and isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
            return pa.scalar(time if time.tzinfo else time.replace(tzinfo=UTC), target)
        except (ValueError, OverflowError, pa.ArrowException):
            pass
    raise UserError(f"The column {shown(name)} is compared with {shown(value)}; compare it with {_EXPECTED[kind]}.")
