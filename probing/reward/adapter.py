"""What adaptation adds to a backbone: a LoRA adapter or changed weights, as files of a kept reward."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from probing.backbones.tuning import require_peft
from probing.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

How = Literal["lora", "full"]
PRODUCTS = (
    r"\w+\.\d+\.(attn|attn2|attention)"
    r"\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out|to_qkv_mlp_proj)"
)
"""Default targets of LoRA: the products of attention in every block, by diffusers' names."""


@dataclass(frozen=True)
class AdapterSettings:
    """How a backbone is adapted.

    Attributes:
        how: ``lora`` trains low-rank additions to the products of attention, ``full`` every weight.
        rank: Rank of LoRA.
        alpha: Factor of LoRA, divided by the rank.
        targets: Regular expression of the names of the layers that LoRA adds to.
    """

    how: How = "lora"
    rank: int = 16
    alpha: float = 16.0
    targets: str = PRODUCTS

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise UserError(f"Got rank {self.rank} and alpha {self.alpha:g} for LoRA, expected 1 or more and above 0.")

    def to_json(self) -> str:
        """Return the settings as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> AdapterSettings:
        """Read settings from JSON.

        Raises:
            ValueError: They were edited.
        """
        try:
            return AdapterSettings(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"The description of the adapter was edited ({error}).") from error


Adapter = tuple[AdapterSettings, Mapping[str, "Tensor"]]


def add_adapter(transformer: nn.Module, settings: AdapterSettings) -> dict[str, nn.Parameter]:
    """Make a transformer trainable, and return what is trained by name.

    Raises:
        UserError: No layer has a name that LoRA targets, or peft is not installed.
    """
    if settings.how == "full":
        transformer.requires_grad_(True)
    else:
        peft = require_peft()
        config = peft.LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=settings.targets)
        try:
            peft.inject_adapter_in_model(config, transformer)
        except ValueError as error:
            raise UserError(f"LoRA finds no layer named like {settings.targets!r}; give other targets.") from error
    return {name: parameter for name, parameter in transformer.named_parameters() if parameter.requires_grad}


def adapter_state(transformer: nn.Module, settings: AdapterSettings) -> dict[str, Tensor]:
    """Return the trained tensors of a transformer by name."""
    state = (
        transformer.state_dict() if settings.how == "full" else require_peft().get_peft_model_state_dict(transformer)
    )
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def apply_adapter(transformer: nn.Module, settings: AdapterSettings, state: Mapping[str, Tensor]) -> None:
    """Give a freshly loaded transformer the tensors of :func:`adapter_state`, and freeze it.

    Raises:
        UserError: They do not fit.
    """
    if settings.how == "lora":
        add_adapter(transformer, settings)
        expected = set(require_peft().get_peft_model_state_dict(transformer))
    else:
        expected = set(transformer.state_dict())
    if expected != set(state):
        odd = sorted(expected ^ set(state))
        raise UserError(f"The adapter does not fit its backbone ({odd[0]} and {len(odd) - 1} more); train it again.")
    try:
        if settings.how == "lora":
            require_peft().set_peft_model_state_dict(transformer, dict(state))
        else:
            transformer.load_state_dict(dict(state))
    except RuntimeError as error:
        raise UserError(f"The adapter does not fit its backbone ({str(error).splitlines()[0]}).") from error
    transformer.eval().requires_grad_(False)


def merge_adapter(transformer: nn.Module, settings: AdapterSettings) -> None:
    """Add LoRA's products to the weights, in place; the names are then those of the plain transformer."""
    if settings.how == "full":
        return
    from peft.tuners.lora import LoraLayer

    for name, module in list(transformer.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent = transformer.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    # diffusers refuses to save a transformer that it believes has an adapter.
    if hasattr(transformer, "peft_config"):
        del transformer.peft_config
    transformer.requires_grad_(False)
