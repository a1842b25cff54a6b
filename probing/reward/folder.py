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
from probing.reward.adapter import Adapter, AdapterSettings
from probing.reward.card import write_card
from probing.reward.manifest import Manifest

HEAD, CONFIG, MANIFEST, CARD = "head.safetensors", "config.json", "manifest.json", "README.md"
ADAPTER, ADAPTER_CONFIG = "adapter.safetensors", "adapter.json"
FILES = (HEAD, CONFIG, MANIFEST, CARD, ADAPTER, ADAPTER_CONFIG)


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Check before a training that a reward can be written into a folder.

    Raises:
        UserError: It holds another reward, or something else.
    """
    others = sorted(path.name for path in folder.iterdir() if path.name not in FILES) if folder.is_dir() else []
    if others and not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} holds other files ({others[0]}); give an empty folder or a new name.")
    if (folder / MANIFEST).exists() and not overwrite:
        raise UserError(f"{folder} holds a reward already; give another folder by --output, or --overwrite.")


def write_folder(
    folder: Path, probe: Probe, manifest: Manifest, adapter: Adapter | None = None, *, overwrite: bool = False
) -> None:
    """Write a reward; the manifest comes last, so that a folder with one is whole.

    Raises:
        UserError: The folder holds another reward or something else, or cannot be written.
    """
    check_folder(folder, overwrite=overwrite)
    described, arrays = describe_probe(probe)
    weights = save({name: array.copy() for name, array in arrays.items()})
    config = json.dumps(described, indent=1, sort_keys=True, ensure_ascii=False).encode()
    contents = {HEAD: weights, CONFIG: config}
    if adapter is not None:
        from safetensors.torch import save as save_tensors

        contents |= {ADAPTER: save_tensors(dict(adapter[1])), ADAPTER_CONFIG: adapter[0].to_json().encode()}
    hashes = {name: _sha256(content) for name, content in contents.items()}
    content = json.dumps(manifest.to_json() | {"sha256": hashes}, indent=1, sort_keys=True, ensure_ascii=False)
    for name in (MANIFEST, ADAPTER, ADAPTER_CONFIG):
        (folder / name).unlink(missing_ok=True)
    for name, data in contents.items():
        write_bytes(folder / name, data)
    write_text(folder / CARD, write_card(manifest, described))
    write_text(folder / MANIFEST, content)


def read_folder(folder: Path) -> tuple[Probe, Manifest, Adapter | None]:
    """Read a reward.

    Raises:
        UserError: A file is missing, damaged or of another format, or the head does not fit its description.
    """
    if not folder.is_dir():
        raise UserError(f"There is no reward at {folder}; python -m probing.reward train makes one.")
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is no whole reward: it lacks {MANIFEST}; copy or train it again.")
    content = _json(folder / MANIFEST)
    manifest = Manifest.from_json(content, str(folder / MANIFEST))
    hashes = content.get("sha256")
    if not isinstance(hashes, dict) or not {HEAD, CONFIG} <= set(hashes) <= set(FILES):
        raise UserError(f"{folder / MANIFEST} was edited or is damaged; copy the folder again.")
    missing = [name for name in hashes if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} is no whole reward: it lacks {', '.join(missing)}; copy or train it again.")
    contents = {name: (folder / name).read_bytes() for name in hashes}
    for name, actual in contents.items():
        if hashes[name] != _sha256(actual):
            raise UserError(f"{folder / name} is not the file that its manifest names; copy or train it again.")
    try:
        return restore_probe(_json(folder / CONFIG), load(contents[HEAD])), manifest, _adapter(contents)
    except (ValueError, SafetensorError) as error:
        raise UserError(f"The head in {folder} cannot be used: {error} Copy or train it again.") from error


def _adapter(contents: Mapping[str, bytes]) -> Adapter | None:
    if ADAPTER not in contents:
        return None
    from safetensors.torch import load as load_tensors

    return AdapterSettings.from_json(contents[ADAPTER_CONFIG].decode()), load_tensors(contents[ADAPTER])


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
