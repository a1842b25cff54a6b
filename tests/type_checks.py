"""The type checker of annotated shapes in the tests: beartype, with an int accepted for a float (PEP 484)."""

from __future__ import annotations

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
