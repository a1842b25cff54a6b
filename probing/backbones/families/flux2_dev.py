"""FLUX.2 dev: FLUX.2 with an embedded guidance, and Mistral 3 as text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool

from probing.backbones.base import Entry
from probing.backbones.families.flux2 import TRANSFORMER, VAE, Flux2Architecture, Flux2Backbone, Flux2Family
from probing.backbones.library_parts import fast_tokenizer, flow_match_scheduler, mistral3

if TYPE_CHECKING:
    from torch import Tensor

_PARTS = (
    flow_match_scheduler(),
    # The pipeline's processor also takes pictures, which are none of the words.
    fast_tokenizer("tokenizer", "PixtralProcessor"),
    TRANSFORMER,
    VAE,
    mistral3("text_encoder"),
)


class Flux2DevArchitecture(Flux2Architecture):
    """The configuration of a FLUX.2 dev pipeline."""

    parts = _PARTS

    def text_parts(self, *, use_t5: bool) -> tuple[str, ...]:
        return ("mistral",)


class Flux2DevBackbone(Flux2Backbone):
    """A frozen ``Flux2Pipeline``; the system message of its chat template counts as text."""

    text_part = "mistral"

    def stock_options(self) -> dict[str, Any]:
        return {**super().stock_options(), "guidance_scale": self.guidance or 0.0}

    def words(self, prompts: Sequence[str]) -> Bool[Tensor, "prompt token"]:
        how = {"padding": "max_length", "max_length": self.text_length, "truncation": True, "return_tensors": "pt"}
        words: Tensor = self._tokenized(prompts, **how)["attention_mask"].bool()
        return words

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Count the tokens of a prompt with its chat template."""
        return [len(ids) for ids in self._tokenized(prompts)["input_ids"]] if prompts else []

    def _tokenized(self, prompts: Sequence[str], **how: Any) -> Any:
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        messages = format_input(list(prompts), system_message=self.pipeline.system_message)
        return self.pipeline.tokenizer.apply_chat_template(
            messages, add_generation_prompt=False, tokenize=True, return_dict=True, **how
        )


class Flux2DevFamily(Flux2Family):
    """``Flux2Pipeline``."""

    pipeline = "Flux2Pipeline"
    architecture = Flux2DevArchitecture
    backbone = Flux2DevBackbone
    parts = _PARTS
    entries = {"flux2-dev": Entry("black-forest-labs/FLUX.2-dev", 1024, architecture="flux2-dev")}  # noqa: RUF012


FAMILY = Flux2DevFamily()
