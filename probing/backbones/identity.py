"""Identity of a model by content: one digest for every part that decides features, from its files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
from huggingface_hub import try_to_load_from_cache

from probing.backbones.base import BackboneSpec, RandomInit
from probing.backbones.folder_check import INDEX, check_parts, part_folders
from probing.backbones.folder_files import read_json, weight_files
from probing.backbones.parts import Part
from probing.backbones.tuning import lora_file
from probing.errors import UserError
from probing.seeds import check_seed

_NOTES = ("transformers_version", "torch_dtype", "dtype", "is_local", "local_files_only", "name_or_path")
"""Entries of a configuration that only note where a file came from, as do all that begin with an underscore."""
_TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "vocab.json",
)
_CHUNK = 16 * 2**20
_SHA256 = re.compile("[0-9a-f]{64}")


def part_digests(
    spec: BackboneSpec, *, random_init: RandomInit, seed: int, use_t5: bool, make_models: bool = True
) -> dict[str, str] | None:
    """Digest the files of every part that decides features; nothing is loaded.

    Args:
        spec: The model.
        random_init: The transformer's digest, or that of ``all`` parts with weights, comes from its configuration and
            the seed.
        seed: Seed of the random weights.
        use_t5: Whether the optional text encoder is used, if there is one.
        make_models: False checks configurations and headers of the weights, but not that they fit tensor by tensor,
            which takes the import of the models' libraries.

    Returns:
        A digest by part (``transformer``, ``vae``, ``text_encoder``, ``tokenizer``, …); None if the model is not on
        this machine yet.

    Raises:
        UserError: The folder has a fault with which it could not be loaded.
    """
    if random_init == "all" and not Path(spec.source).is_dir():
        # Its configurations are written when it is loaded.
        return None
    folder = local_folder(spec)
    if folder is None:
        return None
    try:
        check_folder(spec, folder, random_init=random_init, use_t5=use_t5, make_models=make_models)
    except UserError:
        if Path(spec.source).is_dir():
            raise
        # A cached snapshot may be incomplete until the rest is downloaded.
        return None
    return digests_of(spec, folder, random_init=random_init, seed=seed, use_t5=use_t5)


def revision_of(parts: Mapping[str, str]) -> str:
    """Fold the digests of all parts into 16 hexadecimal characters."""
    return hashlib.blake2b(_canonical(dict(parts)), digest_size=8).hexdigest()


def local_folder(spec: BackboneSpec) -> Path | None:
    """Return the model's folder, or its snapshot in the hub's cache; None if there is none on this machine."""
    if Path(spec.source).is_dir():
        return Path(spec.source)
    cached = try_to_load_from_cache(spec.source, INDEX)
    return Path(cached).parent if isinstance(cached, str) else None


def check_folder(
    spec: BackboneSpec, folder: Path, *, random_init: RandomInit, use_t5: bool, make_models: bool = True
) -> dict[Part, Path]:
    """Check a spec's folder as :func:`probing.backbones.folder_check.check_parts` does."""
    return check_parts(
        folder,
        use_t5=use_t5,
        random_init=random_init,
        transformer=spec.tuning.transformer,
        expected=spec.architecture.configs,
        make_models=make_models,
    )


def digests_of(spec: BackboneSpec, folder: Path, *, random_init: RandomInit, seed: int, use_t5: bool) -> dict[str, str]:
    """Digest the parts of a folder that was checked; the arguments are those of :func:`part_digests`."""
    digests = {}
    for part, path in part_folders(folder, use_t5=use_t5, transformer=spec.tuning.transformer).items():
        if part.kind == "transformer" and random_init:
            content = {"random_init": spec.architecture.configs[part.name], "seed": check_seed(seed)}
            digests[part.name] = hashlib.blake2b(_canonical(content), digest_size=16).hexdigest()
        elif part.has_weights and random_init == "all":
            config = _without_notes(read_json(path / part.config_name))
            content = {"random_init": config, "seed": check_seed(seed)}
            digests[part.name] = hashlib.blake2b(_canonical(content), digest_size=16).hexdigest()
        elif path.is_file():
            digests[part.name] = _file_digest(path, spec.architecture.configs[part.name])
        elif part.kind != "scheduler":
            digests[part.name] = _part_digest(part, path)
    if spec.tuning.lora is not None:
        digests["lora"] = _file_digest(lora_file(spec.tuning.lora), {"scale": spec.tuning.lora_scale})
    return digests


def scheduler_digest(folder: Path) -> str:
    """Digest the scheduler's configuration; it decides trajectories, and no feature of given latents."""
    scheduler = next(part for part in part_folders(folder, use_t5=True) if part.kind == "scheduler")
    config = read_json(folder / scheduler.name / scheduler.config_name)
    return hashlib.blake2b(_canonical(_without_notes(config)), digest_size=16).hexdigest()


def _file_digest(path: Path, config: Mapping[str, Any]) -> str:
    content = [dict(config), path.stat().st_size, _content(path)]
    return hashlib.blake2b(_canonical(content), digest_size=16).hexdigest()


def _part_digest(part: Part, folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(_canonical(_without_notes(read_json(folder / part.config_name))))
    if part.has_weights:
        files = weight_files(folder, part).files
    else:
        files = tuple(folder / name for name in _TOKENIZER_FILES if (folder / name).is_file())
    for path in files:
        digest.update(_canonical([path.name, path.stat().st_size, _content(path)]))
    return digest.hexdigest()


def _content(path: Path) -> str:
    """Return the sha256 that names the blob of a file in the hub's cache, else checksums of all bytes."""
    if path.is_symlink():
        blob = path.resolve()
        if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
            return f"sha256:{blob.name}"
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(google_crc32c.value(chunk).to_bytes(4, "little"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); repair the file or its permissions.") from error
    return digest.hexdigest()


def _without_notes(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in _NOTES}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
