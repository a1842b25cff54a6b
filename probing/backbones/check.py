"""Check a model against its own pipeline, before features of it are trusted.

``python -m probing.backbones.check --model PATH`` runs the pipeline's own first step beside the adapter's, and plain
hooks beside the trace. It says what agrees, and what fails and where; its exit status is 1 if anything fails. It
takes a few forwards of two small pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from probing.backbones.base import Backbone, Conditioning
from probing.backbones.devices import pick_compute_dtype, pick_device
from probing.backbones.families.pipeline import PipelineBackbone
from probing.backbones.loading import load_backbone
from probing.backbones.registry import resolve
from probing.backbones.stock_call import StockCall, stock_call
from probing.backbones.tuning import UNCHANGED, Tuning
from probing.commands import FAILED, OK, run_command
from probing.errors import UserError
from probing.features.trace import BlockTrace
from probing.options import OptionsParser

PROMPTS = ("a small red circle", "a small green square on a white background")
SIGMA = 0.6
_EXACT, _CLOSE = 1e-6, {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""Largest relative difference: of numbers computed in float32, and of features and velocities by type of weights."""


@dataclass(frozen=True)
class CheckOptions:
    """Options of the command.

    Attributes:
        model: Registry name, or a diffusers pipeline folder.
        tuning: Weights that change its transformer.
        device: auto, cpu, cuda, mps.
        compute_dtype: Type of weights and forwards; float32 tells a fault from rounding.
        resolution: Side of the two pictures in pixels; default: the smallest that has 8 tokens a side.
        t5_length: Positions of the text part whose length can be chosen; default: the model's own.
    """

    model: str = "testbed-xs"
    tuning: Tuning = UNCHANGED
    device: str = "auto"
    compute_dtype: str = "float32"
    resolution: int | None = None
    t5_length: int | None = None


PARSER = OptionsParser("probing.backbones.check", CheckOptions, __doc__)


@dataclass(frozen=True)
class Outcome:
    """What one check found.

    Attributes:
        name: Of the check.
        problem: What is wrong and where; empty if it passed.
    """

    name: str
    problem: str


@dataclass(frozen=True)
class Sample:
    """What all checks look at.

    Attributes:
        resolution: Side of the pictures.
        pixels: In [−1, 1].
        latents: x0 by the adapter.
        noisy: Latents of a sampler's first step.
        conditioning: The prompts by the adapter.
    """

    resolution: int
    pixels: Tensor
    latents: Tensor
    noisy: Tensor
    conditioning: Conditioning


def check_backbone(backbone: Backbone, *, resolution: int | None = None) -> list[Outcome]:
    """Run every check.

    Args:
        backbone: Loaded, on any device.
        resolution: Side of the pictures; the smallest with 8 tokens a side if None.

    Returns:
        One outcome a check, in the order of :data:`CHECKS`.

    Raises:
        UserError: The backbone is no diffusers pipeline, so that there is nothing to compare it with.
    """
    if not isinstance(backbone, PipelineBackbone):
        raise UserError(f"{backbone.spec.name} has no pipeline of diffusers to be checked against.")
    outcomes = []
    with torch.inference_mode(), _everything_on_device(backbone):
        sample = _sample(backbone, resolution)
        for name, check in CHECKS.items():
            try:
                problem = next(iter(check(backbone, sample)), "")
            except UserError:
                raise
            except Exception as error:  # A wrong adapter may fail in any way.
                problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            outcomes.append(Outcome(name, problem))
    return outcomes


def _sample(backbone: PipelineBackbone, resolution: int | None) -> Sample:
    architecture = backbone.spec.architecture
    if resolution is None:
        resolution = next(side for side in range(8, 2**14, 8) if _rows(architecture, side) == 8)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(len(PROMPTS), 3, resolution, resolution, generator=generator) * 2 - 1
    latents = backbone.encode_images(pixels)
    noisy = torch.randn(len(PROMPTS), *architecture.latent_shape(resolution), generator=generator)
    return Sample(resolution, pixels, latents, noisy, backbone.encode_prompts(PROMPTS).to(backbone.device))


def _rows(architecture: Any, resolution: int) -> int:
    try:
        return int(architecture.token_grid(resolution)[0])
    except UserError:
        return 0


@contextmanager
def _everything_on_device(backbone: PipelineBackbone) -> Iterator[None]:
    """The pipeline's own call needs all parts at once."""
    with backbone.on_device("text_encoders"), backbone.on_device("vae"), backbone.on_device("transformer"):
        yield


def _check_latents(backbone: PipelineBackbone, sample: Sample) -> Iterator[str]:
    expected = (len(PROMPTS), *backbone.spec.architecture.latent_shape(sample.resolution))
    if tuple(sample.latents.shape) != expected:
        yield f"encoded pictures have the shape {tuple(sample.latents.shape)}, and the plan says {expected}"
    decoded = _stock(backbone, sample).decoded
    vae = backbone.pipeline.vae
    pixels = sample.pixels.to(backbone.device, vae.dtype)
    raw = vae.encode(pixels if decoded.ndim == 4 else pixels.unsqueeze(2)).latent_dist.mode()
    if (gap := _gap(decoded, raw)) > _close(backbone):
        yield (
            f"the pipeline decodes the adapter's latents from another place than the VAE encoded them to (relative "
            f"difference {gap:.2g}): shift, scale or packing of x0 is wrong"
        )


def _check_stock_step(backbone: PipelineBackbone, sample: Sample) -> Iterator[str]:
    stock = _stock(backbone, sample)
    packed = backbone.packed(sample.noisy)
    if packed.shape != stock.sample.shape or _gap(packed, stock.sample) > _close(backbone):
        yield (
            f"the pipeline steps latents of the shape {tuple(stock.sample.shape)}, and the adapter's packing gives "
            f"{tuple(packed.shape)} or another order of values"
        )
        return
    # The pipeline rounds time to the type of the weights; the adapter is asked for the same time.
    start, end = backbone.timestep(0.0), backbone.timestep(1.0)
    sigma = (stock.timestep - start) / (end - start)
    if abs(sigma - stock.sigma) > _close(backbone):
        yield (
            f"the pipeline tells its transformer the timestep {stock.timestep:.4g} at sigma {stock.sigma:.3g}, and the "
            f"adapter {backbone.timestep(stock.sigma):.4g}"
        )
        return
    velocity = backbone.packed(backbone.velocity(sample.noisy, sample.conditioning, sigma))
    if (gap := _gap(velocity, stock.velocity)) <= _close(backbone):
        return
    if _gap(-velocity, stock.velocity) <= _close(backbone):
        yield f"the velocity at sigma {sigma:.3g} has the opposite sign of the pipeline's own"
        return
    mine = backbone.inputs(sample.noisy, sample.conditioning, sigma)
    differing = [name for name, value in stock.inputs.items() if not _agree(value, mine.get(name), backbone)]
    yield (
        f"the velocity at sigma {sigma:.3g} differs from the pipeline's own first step (relative difference "
        f"{gap:.2g}); arguments of the transformer that differ: {', '.join(differing) or 'none'}"
    )


def _check_time(backbone: PipelineBackbone, sample: Sample) -> Iterator[str]:
    for sigma in (0.005, 0.751, 1.0):
        seen = _embedded(backbone, sample, sigma)
        if seen != (stated := backbone.embedded_timestep(sigma)):
            yield f"at sigma {sigma:g} the transformer embeds {seen:.9g}, and the adapter states {stated:.9g}"
            return
        given = backbone.embedded_timestep(0.0) + sigma * (
            backbone.embedded_timestep(1.0) - backbone.embedded_timestep(0.0)
        )
        if abs(seen - given) > _EXACT * max(1.0, abs(given)):
            yield f"at sigma {sigma:g} the transformer embeds {seen:.9g} where {given:.9g} is exact: time is rounded"
            return


def _check_blocks(backbone: PipelineBackbone, sample: Sample) -> Iterator[str]:
    transformer = backbone.transformer
    names = {
        block: name
        for name, blocks in transformer.named_children()
        if isinstance(blocks, nn.ModuleList)
        for block in blocks
    }
    called: list[nn.Module] = []
    with _hooked(names, lambda module, output: called.append(module)):
        backbone.velocity(sample.noisy, sample.conditioning, SIGMA)
    listed = _blocks(backbone)
    if len(listed) != backbone.spec.architecture.num_blocks:
        yield f"there are {len(listed)} blocks, and the plan says {backbone.spec.architecture.num_blocks}"
    elif called != listed:
        order = list(dict.fromkeys(names[block] for block in called))
        yield f"blocks run in the order of {', '.join(order)}, and the adapter lists {', '.join(backbone.block_lists)}"


def _check_features(backbone: PipelineBackbone, sample: Sample) -> Iterator[str]:
    """The trace reads what plain hooks read, bit for bit."""
    inputs = backbone.inputs(sample.noisy, sample.conditioning, SIGMA)
    layout = backbone.layout(sample.noisy, sample.conditioning)
    outputs: list[Any] = []
    listed = _blocks(backbone)
    with _hooked(listed, lambda module, output: outputs.append(output)):
        backbone.transformer(**inputs)
    traced = BlockTrace(backbone).run(inputs, layout, range(len(listed)), lambda _, streams: dict(streams))
    for block, (output, streams) in enumerate(zip(outputs, traced, strict=True)):
        plain = backbone.streams(block, output, layout)
        for stream, tokens in plain.items():
            other = streams[stream]
            same = tokens is other if tokens is None or other is None else torch.equal(tokens, other)
            if not same:
                yield f"the {stream} tokens of block {block} differ from those of a plain hook"
                return


def _check_streams(backbone: PipelineBackbone, sample: Sample) -> Iterator[str]:
    """Counts and widths are the plan's, and a change of one input token shows most at its own place in its stream."""
    architecture = backbone.spec.architecture
    rows, columns = architecture.token_grid(sample.resolution)
    counts = {"image": rows * columns, "text": architecture.text_tokens(backbone.text_length)}
    plain = _streams(backbone, sample.noisy, sample.conditioning)
    for block, streams in enumerate(plain):
        for stream, count in counts.items():
            tokens, planned = streams[stream], block in architecture.blocks_of(stream)
            if (tokens is not None) != planned:
                gives = "gives no" if tokens is None else "gives"
                yield f"block {block} {gives} {stream} tokens, and the plan says otherwise"
                return
            expected = (len(PROMPTS), count, architecture.width)
            if tokens is not None and tuple(tokens.shape) != expected:
                yield f"the {stream} tokens of block {block} have the shape {tuple(tokens.shape)}, and not {expected}"
                return
    first = {stream: min(architecture.blocks_of(stream)) for stream in counts}
    token = (rows // 2) * columns + 1
    latent_rows, latent_columns = sample.noisy.shape[2] // rows, sample.noisy.shape[3] // columns
    noisy = sample.noisy.clone()
    noisy[:, :, (rows // 2) * latent_rows, latent_columns] += 30
    changed = _streams(backbone, noisy, sample.conditioning)
    yield from _where(plain, changed, "image", first["image"], token)
    position = int(torch.stack([mask[0] for mask in sample.conditioning.parts.values()]).any(dim=0).nonzero()[1])
    tensors = dict(sample.conditioning.tensors)
    for name, tensor in tensors.items():
        if tensor.ndim == 3:
            tensors[name] = tensor.clone()
            tensors[name][:, position] += (
                30 * tensor.std() * torch.randn(tensor.shape[2], generator=torch.Generator().manual_seed(1)).to(tensor)
            )
    changed = _streams(backbone, sample.noisy, Conditioning(tensors, sample.conditioning.parts))
    yield from _where(plain, changed, "text", first["text"], position)


def _where(
    plain: Sequence[dict[str, Tensor | None]],
    changed: Sequence[dict[str, Tensor | None]],
    stream: str,
    block: int,
    token: int,
) -> Iterator[str]:
    """Find the place that a change of one input token changes most."""
    size = {}
    for name, before in plain[block].items():
        after = changed[block][name]
        if before is not None and after is not None:
            size[name] = (after.float() - before.float()).norm(dim=2)[0]
    largest = max(size, key=lambda name: float(size[name].max()))
    place = int(size[largest].argmax())
    if (largest, place) != (stream, token):
        yield (
            f"a change of {stream} token {token} shows most in token {place} of what the adapter calls {largest} "
            f"(block {block}): streams or positions are mixed up"
        )


def _check_padding(backbone: PipelineBackbone, sample: Sample) -> Iterator[str]:
    """Words are marked and padding is not: more room for text marks no more tokens, and more words do."""
    short, long = (_marked(backbone.encode_prompts([prompt])) for prompt in PROMPTS)
    for part, count in short.items():
        if not 0 < count < long[part]:
            yield (
                f"{count} tokens of the part {part} are marked as words in a short prompt and {long[part]} in a long "
                f"one: padding is marked"
            )
            return
    length = backbone.text_length
    try:
        backbone.text_length = length + 8
        longer = _marked(backbone.encode_prompts([PROMPTS[0]]))
    finally:
        backbone.text_length = length
    if longer != short:
        yield f"with 8 more positions {longer} tokens are marked as words, and {short} without: padding is marked"


def _check_batch_mates(backbone: PipelineBackbone, sample: Sample) -> Iterator[str]:
    """An item's words and picture have the same features whoever is beside them."""
    together = _streams(backbone, sample.noisy, sample.conditioning)
    row = torch.zeros(1, dtype=torch.long, device=backbone.device)
    alone = _streams(backbone, sample.noisy[:1], backbone.encode_prompts(PROMPTS[:1]).to(backbone.device))
    words = torch.stack([mask[0] for mask in sample.conditioning.rows(row).parts.values()]).any(dim=0)
    for block, (one, both) in enumerate(zip(alone, together, strict=True)):
        for stream in ("image", "text"):
            first, second = one[stream], both[stream]
            if first is None or second is None:
                continue
            first, second = first[0], second[0]
            if stream == "text":
                first, second = first[words], second[words]
            if (gap := _gap(first, second)) > _close(backbone):
                yield (
                    f"the {stream} tokens of block {block} depend on the prompt of another item in the batch (relative "
                    f"difference {gap:.2g})"
                )
                return


CHECKS: dict[str, Callable[[PipelineBackbone, Sample], Iterator[str]]] = {
    "latents are what the pipeline decodes": _check_latents,
    "velocity is that of the pipeline's own first step": _check_stock_step,
    "the embedded timestep is the stated one, and exact": _check_time,
    "blocks are numbered in running order": _check_blocks,
    "features equal plain hooks bit for bit": _check_features,
    "streams have their tokens in their places": _check_streams,
    "padding is not marked as words": _check_padding,
    "batch mates do not move an item": _check_batch_mates,
}
"""Every check, by what is true if it passes."""


def _stock(backbone: PipelineBackbone, sample: Sample) -> StockCall:
    return stock_call(backbone, PROMPTS, sample.noisy, sample.latents, resolution=sample.resolution, sigma=SIGMA)


def _agree(stock: Any, mine: Any, backbone: PipelineBackbone) -> bool:
    if isinstance(stock, list | tuple) and isinstance(mine, list | tuple):
        return len(stock) == len(mine) and all(_agree(a, b, backbone) for a, b in zip(stock, mine, strict=True))
    if isinstance(stock, Tensor) and isinstance(mine, Tensor):
        return stock.squeeze().shape == mine.squeeze().shape and _gap(mine.squeeze(), stock.squeeze()) <= _close(
            backbone
        )
    return isinstance(stock, Tensor) == isinstance(mine, Tensor)


def _embedded(backbone: PipelineBackbone, sample: Sample, sigma: float) -> float:
    """Return the first number that reaches the sinusoids of the time embedding."""
    seen: list[Tensor] = []
    modules = [m for m in backbone.transformer.modules() if type(m).__name__ in ("Timesteps", "TimestepEmbedder")]
    hooks = [module.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for module in modules]
    try:
        backbone.velocity(sample.noisy, sample.conditioning, sigma)
    finally:
        for hook in hooks:
            hook.remove()
    return float(seen[0][0])


@contextmanager
def _hooked(blocks: Any, note: Callable[[nn.Module, Any], None]) -> Iterator[None]:
    hooks = [block.register_forward_hook(lambda module, _, output: note(module, output)) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _blocks(backbone: PipelineBackbone) -> list[nn.Module]:
    return [block for path in backbone.block_lists for block in backbone.transformer.get_submodule(path)]


def _streams(backbone: PipelineBackbone, noisy: Tensor, conditioning: Conditioning) -> list[dict[str, Tensor | None]]:
    """Return the streams of every block, by plain hooks."""
    layout, found = backbone.layout(noisy, conditioning), []
    number = {block: i for i, block in enumerate(_blocks(backbone))}
    with _hooked(number, lambda block, output: found.append(backbone.streams(number[block], output, layout))):
        backbone.transformer(**backbone.inputs(noisy, conditioning, SIGMA))
    return found


def _marked(conditioning: Conditioning) -> dict[str, int]:
    return {part: int(mask.sum()) for part, mask in conditioning.parts.items()}


def _gap(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    if one.shape != other.shape:
        return float("inf")
    one, other = one.float().cpu(), other.float().cpu()
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-12))


def _close(backbone: Backbone) -> float:
    return _CLOSE[backbone.dtype]


def run(options: CheckOptions) -> int:
    device = pick_device(options.device)
    backbone = load_backbone(
        resolve(options.model, options.tuning),
        device=device,
        compute_dtype=pick_compute_dtype(options.compute_dtype, device),
        t5_length=options.t5_length,
    )
    outcomes = check_backbone(backbone, resolution=options.resolution)
    for outcome in outcomes:
        print(f"{'FAILED' if outcome.problem else 'ok':>6}  {outcome.name}{outcome.problem and ': ' + outcome.problem}")
    failed = sum(bool(outcome.problem) for outcome in outcomes)
    print(f"{backbone.spec.name}: {len(outcomes) - failed} of {len(outcomes)} checks passed.")
    return FAILED if failed else OK


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv)


if __name__ == "__main__":
    raise SystemExit(main())
