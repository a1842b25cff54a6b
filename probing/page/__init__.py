"""One HTML page of everything that was measured: a folder of tables in, the text of a page out."""

from probing.page.build import build_page
from probing.page.provenance import public_path
from probing.page.sections import SECTIONS, Section
from probing.page.sources import collect
from probing.page.write import write_page

__all__ = ["SECTIONS", "Section", "build_page", "collect", "public_path", "write_page"]
