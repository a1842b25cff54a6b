"""Keep a reward as a folder: head.safetensors, config.json, manifest.json, and a card. No code is stored in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from probing.errors import UserError
from probing.files import write_bytes, write_text
from probing.probes import Probe, describe_probe, restore_probe
from probing.reward.card import write_card
from probing.reward.manifest import Manifest

HEAD, CONFIG, MANIFEST, CARD = "head.safetensors", "config.json", "manifest.json", "README.md"
FILES = (HEAD, CONFIG, MANIFEST, CARD)


def write_folder(folder: Path, probe: Probe, manifest: Manifest) -> None:
    """Write a reward; the manifest comes last, so that a folder with one is whole.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    others = sorted(path.name for path in folder.iterdir() if path.name not in FILES) if folder.is_dir() else []
    if others and not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} holds other files ({others[0]}); give an empty folder or a new name.")
    described, arrays = describe_probe(probe)
    weights = save({name: array.copy() for name, array in arrays.items()})
    config = json.dumps(described, indent=1, sort_keys=True, ensure_ascii=False)
    hashes = {HEAD: _sha256(weights), CONFIG: _sha256(config.encode())}
    content = json.dumps(manifest.to_json() | {"sha256": hashes}, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST).unlink(missing_ok=True)
    write_bytes(folder / HEAD, weights)
    write_text(folder / CONFIG, config)
    write_text(folder / CARD, write_card(manifest, described))
    write_text(folder / MANIFEST, content)


def read_folder(folder: Path) -> tuple[Probe, Manifest]:
    """Read a reward.

    Raises:
        UserError: A file is missing, damaged or of another format, or the head does not fit its description.
    """
    if not folder.is_dir():
        raise UserError(f"There is no reward at {folder}; python -m probing.reward train makes one.")
    missing = [name for name in (MANIFEST, HEAD, CONFIG) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} is no whole reward: it lacks {', '.join(missing)}; copy or train it again.")
    content = _json(folder / MANIFEST)
    manifest = Manifest.from_json(content, str(folder / MANIFEST))
    weights, config = (folder / HEAD).read_bytes(), (folder / CONFIG).read_bytes()
    for name, actual in ((HEAD, weights), (CONFIG, config)):
        if content.get("sha256", {}).get(name) != _sha256(actual):
            raise UserError(f"{folder / name} is not the file that its manifest names; copy or train it again.")
    try:
        return restore_probe(_json(folder / CONFIG), load(weights)), manifest
    except (ValueError, SafetensorError) as error:
        raise UserError(f"The head in {folder} cannot be used: {error} Copy or train it again.") from error


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); copy the folder again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; copy the folder again.")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
