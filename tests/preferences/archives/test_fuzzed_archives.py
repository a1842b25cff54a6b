"""Damaged archives: every file is exactly as packed, or a sentence that names the archive; nothing outside.

A plain tar has no checksum over contents and long names. For it, flips are made only outside contents (all names
here are short), and damage that moves bytes is required to stay inside the folder and to end in files or a sentence.
"""

from __future__ import annotations

import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probing.errors import UserError
from probing.preferences.archives.unpacking import unpack
from tests.preferences.archives.packed import FILES, PACKERS, unpacked, write_parts

ARCHIVES = {kind: pack() for kind, pack in PACKERS.items()}
NAMES = [f".part{number}" for number in range(1, 5)]


def covered(kind: str, position: int) -> bool:
    """Whether a format's checksums cover a byte."""
    if kind != "tar":
        return True
    with tarfile.open(fileobj=BytesIO(ARCHIVES["tar"])) as packed:
        return not any(one.offset_data <= position < one.offset_data + one.size for one in packed)


@st.composite
def damaged(draw):
    """An archive's kind, its parts by ending, and whether its format can find the damage."""
    kind = draw(st.sampled_from(sorted(ARCHIVES)))
    content, found = bytearray(ARCHIVES[kind]), True
    positions = st.integers(0, len(content) - 1)
    how = draw(st.sampled_from(["flip", "cut", "splice", "insert", "remove", "append", "parts"]))
    endings = draw(st.sampled_from([[""], NAMES]))
    if how == "flip":
        for _ in range(draw(st.integers(1, 2)) if kind == "tar.gz" else 1):
            position = draw(positions)
            found &= covered(kind, position)
            content[position] ^= 1 << draw(st.integers(0, 7))
    elif how == "cut":
        del content[draw(positions) :]
    elif how == "append":
        content += draw(st.binary(min_size=1, max_size=600))
    elif how != "parts":
        start, source = draw(positions), draw(positions)
        length = draw(st.integers(1, 700))
        piece = content[source : source + length]
        found = kind != "tar"
        if how == "splice":
            content[start : start + len(piece)] = piece
        elif how == "insert":
            content[start:start] = piece
        else:
            del content[start : start + length]
    size = max(1, -(-len(content) // len(endings)))
    parts = {ending: bytes(content[n * size : (n + 1) * size]) for n, ending in enumerate(endings)}
    if how == "parts" and len(endings) > 1:
        order = draw(st.permutations(endings))
        parts = {ending: parts[other] for ending, other in zip(endings, order, strict=True)}
        found = kind != "tar" or order == endings
        for ending in draw(st.sets(st.sampled_from(endings), max_size=2)):
            del parts[ending]
    return kind, parts, found


def check(case) -> None:
    kind, parts, found = case
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        folder = top / "inside"
        folder.mkdir()
        for ending, content in parts.items():
            write_parts(folder, f"x.{kind}", content, [ending])
        before = sorted(folder.iterdir())
        message = None
        try:
            unpack(folder)
        except UserError as error:
            message = str(error)
        if message is not None:
            assert f"x.{kind}" in message and "\n" not in message
            assert sorted(folder.iterdir()) == before
        elif found and parts:
            assert unpacked(folder) == FILES
        assert list(top.iterdir()) == [folder]


SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@settings(max_examples=150, **SETTINGS)
@given(damaged())
def test_damage_is_found_or_harmless(case):
    check(case)


@pytest.mark.slow
@settings(max_examples=6000, **SETTINGS)
@given(damaged())
def test_much_damage_is_found_or_harmless(case):
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(ARCHIVES))
def test_every_flipped_bit_is_found_or_harmless(kind):
    content = ARCHIVES[kind]
    for position in range(len(content)):
        for bit in range(8) if kind != "tar" else (position % 8,):
            changed = bytearray(content)
            changed[position] ^= 1 << bit
            check((kind, {"": bytes(changed)}, covered(kind, position)))


@pytest.mark.parametrize("kind", sorted(ARCHIVES))
def test_every_truncation_is_found(kind):
    step = 7 if kind != "tar" else 97
    for length in range(0, len(ARCHIVES[kind]), step):
        check((kind, {"": ARCHIVES[kind][:length]}, True))
