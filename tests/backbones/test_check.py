"""Every family against its own pipeline, and wrong adapters that the check must find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from probing.backbones import Backbone, Conditioning, load_backbone, resolve
from probing.backbones.check import CHECKS, check_backbone, main
from probing.errors import UserError
from tests.fakes.tiny_pipelines import TINY, write

CPU = torch.device("cpu")
LENGTH = 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made: dict[str, Any] = {}

    def folder(name: str) -> Any:
        if name not in made:
            made[name] = write(name, tmp_path_factory.mktemp(name))
        return made[name]

    return folder


def loaded(folder: Any, dtype: torch.dtype = torch.float32) -> Any:
    return load_backbone(resolve(str(folder)), device=CPU, compute_dtype=dtype, t5_length=LENGTH)


def failed(backbone: Backbone) -> dict[str, str]:
    return {outcome.name: outcome.problem for outcome in check_backbone(backbone) if outcome.problem}


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize("name", TINY)
def test_every_family_passes(folders, name, dtype):
    outcomes = check_backbone(loaded(folders(name), dtype))
    assert [outcome.name for outcome in outcomes] == list(CHECKS)
    assert not [outcome for outcome in outcomes if outcome.problem]


def changed(backbone: Any, method: str, change: Callable[[Any], Any]) -> None:
    """Pass what a method returns through a function."""
    original = getattr(backbone, method)
    setattr(backbone, method, lambda *args, **kwargs: change(original(*args, **kwargs)))


def swapped_streams(backbone: Any) -> None:
    changed(backbone, "streams", lambda streams: {"image": streams["text"], "text": streams["image"]})


def shifted_places(backbone: Any) -> None:
    """The image is read one token too late in the joined sequence, or in its own."""
    changed(backbone, "streams", lambda streams: {**streams, "image": streams["image"].roll(-1, dims=1)})


def time_from_the_other_end(backbone: Any) -> None:
    original = backbone.timestep
    backbone.timestep = lambda sigma: original(1 - sigma)


def rounded_time(backbone: Any) -> None:
    original = backbone.timestep
    backbone.timestep = lambda sigma: float(torch.tensor(original(sigma), dtype=torch.bfloat16))


def time_that_is_not_what_is_stated(backbone: Any) -> None:
    changed(backbone, "embedded_timestep", lambda value: value + 0.5)


def packed_in_another_order(backbone: Any) -> None:
    """Noise that is drawn in packed tokens, channels last, is another noise than the pipeline's."""
    changed(backbone, "packed", lambda tokens: tokens.unflatten(2, (-1, 4)).transpose(2, 3).flatten(2))


def latents_packed_before_noise(backbone: Any) -> None:
    changed(backbone, "encode_images", lambda latents: torch.nn.functional.pixel_unshuffle(latents, 2))


def latents_without_their_shift(backbone: Any) -> None:
    changed(backbone, "encode_images", lambda latents: latents + 0.2)


def pads_marked_as_words(backbone: Any) -> None:
    changed(
        backbone,
        "encode_prompts",
        lambda c: replace(c, parts={name: torch.ones_like(mask) for name, mask in c.parts.items()}),
    )


def negated_velocity(backbone: Any) -> None:
    changed(backbone, "velocity", lambda velocity: -velocity)


def other_guidance(backbone: Any) -> None:
    original = backbone.inputs
    backbone.inputs = lambda *args: {**original(*args), "guidance": torch.full((len(args[0]),), 1.0)}


def positions_of_a_transposed_image(backbone: Any) -> None:
    original = backbone.inputs
    backbone.inputs = lambda *args: {
        **(inputs := original(*args)),
        "img_ids": inputs["img_ids"][..., [0, 2, 1, *range(3, inputs["img_ids"].shape[-1])]],
    }


def blocks_in_another_order(backbone: Any) -> None:
    backbone.block_lists = backbone.block_lists[::-1]


def a_list_of_blocks_forgotten(backbone: Any) -> None:
    backbone.block_lists = backbone.block_lists[:-1]


def words_without_a_mask(backbone: Any) -> None:
    original = backbone.inputs
    backbone.inputs = lambda *args: {**original(*args), "encoder_hidden_states_mask": None}


def words_of_batch_mates(backbone: Any) -> None:
    def mixed(conditioning: Conditioning) -> Conditioning:
        tensors: dict[str, Tensor] = dict(conditioning.tensors)
        for name, tensor in tensors.items():
            if tensor.ndim == 3:
                tensors[name] = tensor + tensor.mean(dim=0, keepdim=True)
        return replace(conditioning, tensors=tensors)

    changed(backbone, "encode_prompts", mixed)


MUTANTS = [
    ("sd3", swapped_streams, "streams have their tokens"),
    ("flux2-klein", shifted_places, "streams have their tokens"),
    ("z-image", time_from_the_other_end, "own first step"),
    ("sd3", time_from_the_other_end, "own first step"),
    ("flux-dev", rounded_time, "embedded timestep"),
    ("qwen-image", time_that_is_not_what_is_stated, "embedded timestep"),
    ("flux-schnell", packed_in_another_order, "own first step"),
    ("sd3", latents_packed_before_noise, "what the pipeline decodes"),
    ("z-image", latents_without_their_shift, "what the pipeline decodes"),
    ("flux2-klein", latents_without_their_shift, "what the pipeline decodes"),
    ("sd3", pads_marked_as_words, "padding is not"),
    ("z-image", pads_marked_as_words, "padding is not"),
    ("z-image", negated_velocity, "own first step"),
    ("flux-dev", other_guidance, "own first step"),
    ("flux-dev", positions_of_a_transposed_image, "own first step"),
    ("flux2-klein", positions_of_a_transposed_image, "own first step"),
    ("flux-dev", blocks_in_another_order, "running order"),
    ("z-image", a_list_of_blocks_forgotten, "running order"),
    ("qwen-image", words_without_a_mask, "batch mates"),
    ("flux-schnell", words_of_batch_mates, "batch mates"),
]


@pytest.mark.parametrize(
    ("name", "mutate", "check"), MUTANTS, ids=[f"{name}-{mutate.__name__}" for name, mutate, _ in MUTANTS]
)
def test_a_wrong_adapter_is_found(folders, name, mutate, check):
    backbone = loaded(folders(name))
    mutate(backbone)
    assert any(check in failure for failure in failed(backbone)), failed(backbone)


def test_a_wrong_sign_is_named(folders):
    backbone = loaded(folders("z-image"))
    negated_velocity(backbone)
    (problem,) = failed(backbone).values()
    assert "opposite sign" in problem


def test_a_wrong_argument_is_named(folders):
    backbone = loaded(folders("flux-dev"))
    other_guidance(backbone)
    (problem,) = failed(backbone).values()
    assert problem.endswith("arguments of the transformer that differ: guidance")


def test_the_command_reports_and_exits_by_the_result(folders, capsys, monkeypatch):
    folder = str(folders("flux-schnell"))
    assert main(["--model", folder, "--device", "cpu", "--t5-length", str(LENGTH)]) == 0
    assert capsys.readouterr().out.endswith("flux-schnell: 8 of 8 checks passed.\n")
    from probing.backbones.families.flux import FluxBackbone

    monkeypatch.setattr(FluxBackbone, "block_lists", FluxBackbone.block_lists[:1])
    assert main(["--model", folder, "--device", "cpu", "--t5-length", str(LENGTH)]) == 1
    assert (
        "FAILED  blocks are numbered in running order: there are 2 blocks, and the plan says 5"
        in capsys.readouterr().out
    )


def test_a_family_without_a_pipeline_is_refused():
    class Bare(Backbone):
        pass

    Bare.__abstractmethods__ = frozenset()
    bare = object.__new__(Bare)
    bare.spec = resolve("testbed-xs")
    with pytest.raises(UserError, match="no pipeline of diffusers to be checked against"):
        check_backbone(bare)
