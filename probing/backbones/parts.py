"""One part of a pipeline folder: its files, its classes, and how its configuration is checked."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from probing.backbones.config_rules import Rule, check_entries
from probing.backbones.log_lines import quiet_imports
from probing.errors import UserError

Kind = Literal["transformer", "vae", "text_encoder", "tokenizer", "scheduler"]


@dataclass(frozen=True, eq=False)
class Part:
    """One entry of ``model_index.json``.

    Attributes:
        name: Its name in the index, and the name of its folder.
        kind: What it does in the pipeline.
        source: The class that is loaded; or its name as ``library:Class``, and the library, whose import takes
            seconds, is imported when the class is used.
        classes: Further names of that class in the index.
        rules: Types and bounds of entries of its configuration.
        check: Checks relations between entries; it takes the file and its content.
        renames: Patterns of tensor names in published weights, and how the library writes them now.
        repeated: For each list of equal blocks in its weights, the entry of the configuration that counts them.
        run: Runs an empty model once, to find a configuration that describes no model.
        without: How to do without the part, for messages; empty for a required part.
    """

    name: str
    kind: Kind
    source: str | type
    classes: tuple[str, ...] = ()
    rules: Mapping[str, Rule] = field(default_factory=dict)
    check: Callable[[Path, Mapping[str, Any]], None] | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    repeated: Mapping[str, str] = field(default_factory=dict)
    run: Callable[[Any], object] | None = None
    without: str = ""

    @cached_property
    def model(self) -> Any:
        """The class that is loaded."""
        with quiet_imports():
            return pkgutil.resolve_name(self.source) if isinstance(self.source, str) else self.source

    @property
    def supported(self) -> tuple[str, ...]:
        """Class names that the index may give."""
        return (self._origin[1], *self.classes)

    @property
    def has_weights(self) -> bool:
        return self.kind not in ("tokenizer", "scheduler")

    @property
    def is_optional(self) -> bool:
        return bool(self.without)

    @property
    def of_transformers(self) -> bool:
        """Whether the class is a model of the transformers library; other models are diffusers'."""
        return self.has_weights and self._origin[0].split(".")[0] == "transformers"

    @property
    def _origin(self) -> tuple[str, str]:
        """Module and name of the class."""
        if isinstance(self.source, type):
            return self.source.__module__, self.source.__name__
        module, _, name = self.source.partition(":")
        return module, name

    @property
    def config_name(self) -> str:
        names = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}
        return names.get(self.kind, "config.json")

    @property
    def weights_stem(self) -> str:
        return "model" if self.of_transformers else "diffusion_pytorch_model"

    def renamed(self, name: str) -> str:
        """Return a tensor's name as the library writes it now."""
        for pattern, replacement in self.renames.items():
            name = re.sub(pattern, replacement, name)
        return name

    def check_config(self, path: Path, config: Mapping[str, Any]) -> None:
        """Check the class, types, bounds and relations of a configuration.

        Raises:
            UserError: The first fault.
        """
        if self.has_weights and not self.of_transformers and (name := config.get("_class_name")) not in self.supported:
            raise UserError(f"{path.parent} holds a {name!s:.80}, and supported are: {', '.join(self.supported)}.")
        check_entries(path, self.rules, config)
        if self.check is not None:
            self.check(path, config)

    def new_model(self, folder: Path) -> Any:
        """Make the model that the configuration in a folder describes, with fresh weights."""
        if self.of_transformers:
            return self.model(self.model.config_class.from_pretrained(folder, local_files_only=True)).eval()
        return self.model.from_config(self.model.load_config(folder)).eval()

    def empty_model(self, folder: Path) -> Any:
        """Make that model and run it once; on the meta device, which holds no weights."""
        model = self.new_model(folder)
        if self.run is not None:
            self.run(model)
        return model


def is_absent(entry: Any) -> bool:
    """Return whether an entry of the index gives no part."""
    return entry in (None, [None, None])


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the notes of diffusers on files and versions; keep what builds the model."""
    return {key: value for key, value in config.items() if not key.startswith("_")}
