"""The recipes: conditioning equal to a stock call, complete folders, records of training."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import nn

from probing.errors import UserError
from probing.testbed.judge import EACH, WHOLE
from probing.testbed.recipes import assemble, card, family, mmdit, pixels, text, vae
from probing.testbed.recipes.loop import Schedule
from probing.testbed.scenes import ATTRIBUTES, PLACES, canonical, parse, vocabulary
from probing.testbed.sizes import SIZES, run_name

SCENES = 12
"""Training scenes."""

SHORT = Schedule(steps=4, batch_size=4, learning_rate=1e-3, warmup=1, average=2, shape="plateau", matrix_rate=0.01)
"""A short version of the MMDiT's schedule."""


def test_muon_optimises_attention_and_mlp_without_modulation():
    model = mmdit.build("m")
    chosen = {id(matrix) for matrix in mmdit.matrices(model)}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in chosen}
    assert {name.rsplit(".", 1)[1] for name in names} == {"weight"}
    kinds = {name.split(".", 2)[2].removesuffix(".weight") for name in names}
    linear = {
        name.split(".", 2)[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("transformer_blocks.")
    }
    assert kinds == {name for name in linear if not name.startswith("norm1")} and len(linear) > len(kinds) > 10


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run a few steps of every recipe on a few scenes."""
    folder = tmp_path_factory.mktemp("runs")
    patch = pytest.MonkeyPatch()
    patch.setattr(pixels.TrainingScenes.__init__, "__defaults__", (SCENES, 1))
    patch.setattr(mmdit.EncodedScenes.__init__, "__defaults__", (SCENES, "cpu", 1))
    for name in text.WIDTHS:
        text.run_clip(folder / name, name, replace(SHORT, steps=2))
    text.run_t5(folder / "text_encoder_3", replace(SHORT, steps=2))
    vae.run(folder / "vae", replace(SHORT, steps=2))
    mmdit.run(folder, "xs", SHORT)
    mmdit.run(folder, "xs", replace(SHORT, seed=1))
    yield folder
    patch.undo()


@pytest.mark.slow
def test_scenes_are_encoded_as_in_the_pipeline(runs):
    scenes, encoded = pixels.TrainingScenes(runs), mmdit.EncodedScenes(runs)
    tokens, pooled = mmdit.Captions(runs).encode(scenes.captions[:3])
    network = AutoencoderKL.from_pretrained(runs / "vae" / "vae")
    caption, drawn = scenes.captions[0], torch.from_numpy(scenes.pixels[:3] / 127.5 - 1).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        latents = network.encode(drawn).latent_dist.mean
    latents = (latents - network.config.shift_factor) * network.config.scaling_factor
    for stored, exact in ((encoded.tokens, tokens), (encoded.pooled, pooled), (encoded.latents, latents)):
        half = torch.from_numpy(np.array(stored[:3])).float()
        torch.testing.assert_close(half, exact, rtol=2e-3, atol=2e-3 * float(exact.abs().max()))
    assert parse(caption).caption == caption


def test_scenes_encoded_by_other_weights_are_refused(runs, tmp_path):
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    with pytest.raises(UserError, match="unpack, or vae and text, first"):
        mmdit.EncodedScenes(tmp_path / "nothing")
    first = mmdit.EncodedScenes(tmp_path).encoders
    changed = AutoencoderKL.from_pretrained(tmp_path / "vae" / "vae")
    nn.init.zeros_(changed.decoder.conv_out.bias.data)
    changed.save_pretrained(tmp_path / "vae" / "vae")
    with pytest.raises(UserError, match="encoded by another VAE") as refused:
        mmdit.EncodedScenes(tmp_path)
    for path in str(refused.value).split("remove ")[1].split(" to encode")[0].split(", "):
        Path(path).unlink()
    assert mmdit.EncodedScenes(tmp_path).encoders != first


@pytest.mark.slow
def test_scenes_do_not_depend_on_the_number_of_workers(tmp_path):
    alone, together = (pixels.TrainingScenes(tmp_path / str(n), 120, n) for n in (1, 2))
    assert alone.captions == together.captions and len(set(alone.captions)) > 100
    np.testing.assert_array_equal(alone.pixels, together.pixels)


def test_family_trains_every_size_and_seed_and_names_failures(runs, tmp_path, monkeypatch):
    """Replace the processes: all succeed in the first run, one fails in the second."""
    assert {size for size, _ in family.trainings()} == set(SIZES) and ("xs", 1) in family.trainings()
    monkeypatch.setattr(family, "trainings", lambda: [("xs", 0), ("xs", 1)])
    started = []

    def run(command, **_):
        started.append(command)
        return subprocess.CompletedProcess(command, int(fails and "1" in command))

    monkeypatch.setattr(family.subprocess, "run", run)
    fails = False
    written = family.run(runs, tmp_path, jobs=2, options=["--threads", "1"])
    assert (written[0].name, written[-1].name) == ("xs", "xs-seed1") and all(path.is_dir() for path in written)
    assert all(command[-2:] == ["--threads", "1"] for command in started) and len(started) == 2
    fails = True
    with pytest.raises(UserError, match="The training of xs-seed1 failed"):
        family.run(runs, tmp_path, jobs=2)


@pytest.mark.slow
def test_compiled_training_equals_plain_training(runs, tmp_path):
    """Up to rounding, after three steps on the same scenes and noise."""
    for name in ("vae", "tokenizer", *text.WIDTHS, "text_encoder_3"):
        (tmp_path / name).symlink_to(runs / name)
    for path in runs.glob("*.npy"):
        (tmp_path / path.name).symlink_to(path)
    short = Schedule(steps=3, batch_size=4, learning_rate=1e-3, warmup=1)
    losses = []
    for compiled in (False, True):
        folder = tmp_path / f"mmdit-{run_name('xs')}"
        mmdit.run(tmp_path, "xs", short, compiled=compiled)
        model = SD3Transformer2DModel.from_pretrained(folder / "transformer")
        losses.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        shutil.rmtree(folder)
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)


def test_seeds_give_different_weights(runs):
    first, second = (
        SD3Transformer2DModel.from_pretrained(runs / f"mmdit-{name}" / "transformer") for name in ("xs", "xs-seed1")
    )
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True) if a.ndim > 1]
    assert sum(same) < len(same) / 2


def test_sizes_grow_and_one_has_dual_attention():
    models = {size: mmdit.build(size) for size in SIZES}
    counts = [sum(p.numel() for p in model.parameters()) for model in models.values()]
    assert counts == sorted(counts) and counts[0] < 1.1e6 and counts[-1] > 10e6
    assert [len(model.config.dual_attention_layers) > 0 for model in models.values()] == [False, False, True, False]


def test_training_captions_equal_a_stock_call(runs, tmp_path):
    encoders = mmdit.Captions(runs)
    captions = ["a small red circle on a white background", "", "three large green crosses on a pink background"]
    tokens, pooled = encoders.encode(captions)
    stock = StableDiffusion3Pipeline(
        transformer=mmdit.build("xs"),
        scheduler=None,
        vae=None,
        text_encoder=encoders.clips[0],
        tokenizer=encoders.tokenizer,
        text_encoder_2=encoders.clips[1],
        tokenizer_2=encoders.tokenizer,
        text_encoder_3=encoders.t5,
        tokenizer_3=encoders.t5_tokenizer,
    )
    with torch.no_grad():
        expected, _, expected_pooled, _ = stock.encode_prompt(
            captions, None, None, do_classifier_free_guidance=False, max_sequence_length=text.T5_LENGTH
        )
    assert torch.equal(tokens, expected)
    assert torch.equal(pooled, expected_pooled)
    assert tokens.shape[1] == text.CAPTION_LENGTH + text.T5_LENGTH


def test_assembled_folder_encodes_captions_as_in_training(runs, tmp_path):
    """Load without a dtype and compare the conditioning with that of training."""
    captions = ["a small red circle on a white background", "", "three large green crosses on a pink background"]
    folder = assemble.run(runs, "xs", 0, tmp_path)[0]
    loaded = StableDiffusion3Pipeline.from_pretrained(folder)
    with torch.no_grad():
        tokens, _, pooled, _ = loaded.encode_prompt(
            captions, None, None, do_classifier_free_guidance=False, max_sequence_length=text.T5_LENGTH
        )
    expected, expected_pooled = mmdit.Captions(runs).encode(captions)
    assert tokens.dtype == torch.float32
    # Half precision on disk is the only difference.
    torch.testing.assert_close(tokens, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
    torch.testing.assert_close(pooled, expected_pooled, rtol=1e-2, atol=1e-2 * float(expected_pooled.abs().max()))


def test_further_trainings_are_saved_as_transformers(runs, tmp_path):
    for folder in [*assemble.run(runs, "xs", 0, tmp_path)[1:], *assemble.run(runs, "xs", 1, tmp_path)]:
        assert folder.parent == tmp_path / "trainings"
        transformer = SD3Transformer2DModel.from_pretrained(folder)
        assert transformer.config.num_layers == SIZES["xs"].blocks
    assert folder.name == "xs-seed1"


def test_assembling_replaces_stale_checkpoints_and_cards_only(runs, tmp_path):
    stale, seed = tmp_path / "trainings" / "xs-step00777", tmp_path / "trainings" / "xs-seed1"
    stale.mkdir(parents=True)
    assemble.run(runs, "xs", 1, tmp_path)
    (seed / "card.json").write_text("a stale card")
    assemble.run(runs, "xs", 0, tmp_path)
    assert not stale.exists() and (seed / "card.json").exists()
    assemble.run(runs, "xs", 1, tmp_path)
    assert not (seed / "card.json").exists()


def test_unfinished_training_is_not_assembled(runs, tmp_path):
    for part in ("tokenizer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae"):
        (tmp_path / part).symlink_to(runs / part)
    for path in runs.glob("*-*.npy"):
        (tmp_path / path.name).symlink_to(path)
    mmdit.run(tmp_path, "xs", replace(SHORT, seed=2), stop_after=2)
    with pytest.raises(UserError, match="holds no finished training"):
        assemble.run(tmp_path, "xs", 2, tmp_path / "weights")
    mmdit.run(tmp_path, "xs", replace(SHORT, seed=2))
    assert assemble.run(tmp_path, "xs", 2, tmp_path / "weights")


@pytest.mark.slow
def test_cards_record_training_and_measurements(runs, tmp_path, monkeypatch):
    for name, value in {"_SCENES": 6, "_JUDGED": 3, "STEPS": 2}.items():
        monkeypatch.setattr(card, name, value)
    monkeypatch.setattr(card.draw_samples, "__defaults__", (1, 2))
    for seed in (0, 1):
        assemble.run(runs, "xs", seed, tmp_path)
    curve = tmp_path / "xs" / "training.png"
    curve.write_bytes(b"an existing plot")
    written = card.run(tmp_path / "nowhere", "xs", tmp_path)
    assert curve.read_bytes() == b"an existing plot"
    cards = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.rglob("card.json")}
    steps = {name: content["steps"] for name, content in cards.items()}
    assert steps == {"xs": 4, "xs-seed1": 4} | {"xs-step00001": 1}
    assert [cards[name]["schedule"]["seed"] for name in ("xs", "xs-seed1")] == [0, 1]
    assert all(content["computed_in"] in {"float32", "bfloat16"} for content in cards.values())
    assert "after 4 steps" in written.read_text() and '"matrix_rate": 0.01' in written.read_text()
    (tmp_path / "xs" / mmdit.RECORD).unlink()
    with pytest.raises(UserError, match="assemble again"):
        card.run(runs, "xs", tmp_path)


@pytest.mark.slow
def test_card_losses_equal_plain_calls(runs, tmp_path):
    assemble.run(runs, "xs", 0, tmp_path)
    pipeline, encoders = card.load_pipeline(tmp_path / "xs"), mmdit.Captions(runs)
    for parameter in pipeline.transformer.proj_out.parameters():
        nn.init.normal_(parameter)
    scenes = card.HeldOut.draw(pipeline.vae, 3)
    wrong = {2: scenes.captions[0]}
    losses = torch.cat([scenes.losses(pipeline), scenes.losses(pipeline, wrong)], dim=1)
    for number, caption, by_level in zip([0, 1, 2, 2], [*scenes.captions, *wrong.values()], losses.T, strict=True):
        clean, noise = scenes.latents[number, None], scenes.noise[number, None]
        with torch.inference_mode():
            tokens, pooled = encoders.encode([caption])
            for sigma, loss in zip(card._SIGMAS, by_level, strict=True):
                mixed = (1 - sigma) * clean + sigma * noise
                velocity = pipeline.transformer(mixed, tokens, pooled, torch.tensor([1000 * sigma])).sample
                # The pipeline's encoders were rounded to half precision.
                torch.testing.assert_close(loss, (velocity - (noise - clean)).square().mean(), rtol=0.01, atol=0)


def test_only_known_attributes_are_discriminated(runs, monkeypatch):
    network = AutoencoderKL.from_pretrained(runs / "vae" / "vae")
    scenes = card.HeldOut.draw(network, 30)

    def background_losses(self, pipeline, captions=None):
        captions = dict(enumerate(self.captions)) if captions is None else captions
        wrong = [parse(captions[n]).background != parse(self.captions[n]).background for n in captions]
        return torch.tensor([wrong] * 5).float()

    monkeypatch.setattr(card.HeldOut, "losses", background_losses)
    table = card.caption_discrimination(None, scenes, scenes.losses(None)[:, :20]).set_index("attribute")
    accuracy = table.pop("accuracy")
    assert accuracy.pop("background") == 1.0 and table["n"]["background"] == 20
    assert 0 < accuracy.pop(EACH) < 1 and not accuracy.any()
    assert set(accuracy.index) == {*ATTRIBUTES, WHOLE} - {"background"}


def test_held_out_captions_are_not_in_training():
    trained = pixels.trained_scenes(2_000)
    again = {canonical(parse(c)) for c in pixels._draw(range(40))[0]}
    assert again <= trained
    captions = [parse(caption) for caption in card.held_out_captions(200)]
    assert not {canonical(scene) for scene in captions} & pixels.trained_scenes()
    kinds = [len(scene.things) for scene in captions]
    # Expect 45, 40 and 15%, within three standard errors.
    assert abs(kinds.count(1) - 90) < 22 and abs(kinds.count(2) - 80) < 21 and abs(kinds.count(3) - 30) < 16


def test_shipped_pipeline_is_unpacked_for_another_training(tmp_path):
    folder, caption = assemble.WEIGHTS / "xs", "a small red circle on a white background"
    assemble.unpack(folder, tmp_path)
    stock = StableDiffusion3Pipeline.from_pretrained(folder)
    with torch.no_grad():
        expected, _, pooled, _ = stock.encode_prompt(
            caption, None, None, do_classifier_free_guidance=False, max_sequence_length=text.T5_LENGTH
        )
    tokens, pooled_again = mmdit.Captions(tmp_path).encode([caption])
    torch.testing.assert_close(tokens, expected)
    torch.testing.assert_close(pooled_again, pooled)
    vae_again = AutoencoderKL.from_pretrained(tmp_path / "vae" / "vae")
    assert torch.equal(vae_again.decoder.conv_out.weight, stock.vae.decoder.conv_out.weight)
    assert vae_again.config.scaling_factor == stock.vae.config.scaling_factor


def test_every_word_is_one_token(tmp_path):
    clip, t5 = text.build_tokenizer(tmp_path), text.build_t5_tokenizer()
    for word in vocabulary():
        assert len(clip(word)["input_ids"]) == 3
        assert len(t5(word)["input_ids"]) == 2
    assert t5.unk_token_id not in t5("a teapot")["input_ids"]


@pytest.mark.parametrize(
    ("caption", "answers"),
    [
        (
            "a small striped red circle right of a large blue star on a pink background",
            {"right": ("circle", "red", "small", "striped"), "left": ("star", "blue", "large", "plain")},
        ),
        (
            "a red circle a red star and a blue cross in a column on a white to gray background",
            {
                "top": ("circle", "red", None, "plain"),
                "middle": ("star", "red", None, "plain"),
                "bottom": ("cross", "blue", None, "plain"),
            },
        ),
        ("three large orange crosses on a black background", {"anywhere": ("cross", "orange", "large", "plain")}),
    ],
)
def test_questions_cover_every_place(caption, answers):
    sampled, rng = {}, np.random.default_rng(0)
    for _ in range(50):
        place, right = text.sample_question(parse(caption), rng)
        values = zip(text._QUESTIONS.values(), right, strict=True)
        sampled[PLACES[place]] = tuple(options[number] for options, number in values)
    assert sampled == answers


def test_vae_has_scale_and_shift(runs):
    config = AutoencoderKL.from_pretrained(runs / "vae" / "vae").config
    assert config.scaling_factor > 0
    assert config.shift_factor is not None
