"""Show Sphinx roles of docstrings, such as ``:class:`x.Y```, as code on the site."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Roles(Extension):
    """Replaces roles in every docstring."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r":(?:class|func|meth|mod|data|attr):`", "`", obj.docstring.value)
