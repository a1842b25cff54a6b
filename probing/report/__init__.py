"""One HTML page of all measurements: a folder of tables in, the text of a page out."""

from probing.report.build import build_page
from probing.report.provenance import public_path
from probing.report.sections import Section
from probing.report.sources import FigureInput, TableSource, collect

__all__ = ["FigureInput", "Section", "TableSource", "build_page", "collect", "public_path"]
