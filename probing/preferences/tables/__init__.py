"""Read tables from CSV, Parquet and JSON files strictly, check their types, and select rows by conditions."""

from probing.preferences.tables.column_types import Kind, numbers
from probing.preferences.tables.condition_rows import rows_where
from probing.preferences.tables.json_file import read_json
from probing.preferences.tables.parquet_file import damage_reported, read_columns
from probing.preferences.tables.table_file import SUFFIXES, read_table

__all__ = ["SUFFIXES", "Kind", "damage_reported", "numbers", "read_columns", "read_json", "read_table", "rows_where"]
