"""Numbers of a configuration are bounded, and compared with the weights before memory is taken."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from probing.backbones import resolve
from probing.errors import UserError
from tests.backbones.model_folders import WEIGHTED, config_path, copied, edit_config, edit_json, load, refused


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return copied(tiny_folder, tmp_path / "model")


SIZES = [
    ("transformer", "num_layers"),
    ("transformer", "attention_head_dim"),
    ("transformer", "num_attention_heads"),
    ("transformer", "joint_attention_dim"),
    ("transformer", "pooled_projection_dim"),
    ("transformer", "pos_embed_max_size"),
    ("transformer", "sample_size"),
    ("transformer", "patch_size"),
    ("vae", "layers_per_block"),
    ("vae", "latent_channels"),
    ("vae", "norm_num_groups"),
    ("text_encoder", "num_hidden_layers"),
    ("text_encoder", "hidden_size"),
    ("text_encoder_2", "intermediate_size"),
    ("text_encoder_2", "vocab_size"),
    ("text_encoder_3", "num_layers"),
    ("text_encoder_3", "d_model"),
    ("text_encoder_3", "vocab_size"),
    ("text_encoder_3", "relative_attention_num_buckets"),
]


@pytest.mark.parametrize("value", [10**9, 2**70, True, "4", -1, 0, 4.0, None, [4], 1e300])
@pytest.mark.parametrize(("part", "key"), SIZES)
def test_sizes_of_another_type_or_out_of_bounds(tiny_folder, tmp_path_factory, part, key, value):
    folder = copied(tiny_folder, tmp_path_factory.mktemp("sizes") / "model")
    edit_config(folder, part, **{key: value})
    with pytest.raises(UserError, match=rf"{part}.*: {key} must be a whole number from \d+ to \d+, got "):
        resolve(str(folder))


@pytest.mark.parametrize(
    ("part", "key", "value", "match"),
    [
        ("transformer", "num_layers", 999, "num_layers = 999, and its weights hold 4 blocks"),
        ("transformer", "num_layers", 3, "num_layers = 3, and its weights hold 4 blocks"),
        ("transformer", "pos_embed_max_size", 4096, r"pos_embed\.pos_embed has the shape"),
        ("transformer", "joint_attention_dim", 2**18, "joint_attention_dim is 262144, and the T5 encoder's d_model"),
        ("transformer", "attention_head_dim", 4096, "caption_projection_dim must be"),
        ("transformer", "dual_attention_layers", [0, 9], "dual_attention_layers must be below num_layers = 4, got 9"),
        ("transformer", "qk_norm", "none", "qk_norm must be one of"),
        ("transformer", "qk_norm", None, "unexpected transformer_blocks"),
        ("vae", "block_out_channels", [8, 2**16], "has the shape"),
        ("vae", "block_out_channels", [8, 10**9], "block_out_channels must be a list"),
        ("vae", "block_out_channels", [], "block_out_channels must have at least 1"),
        ("vae", "layers_per_block", 8, "layers_per_block = 8, and its weights hold 1 blocks"),
        ("vae", "shift_factor", None, "shift_factor must be a number"),
        ("vae", "scaling_factor", 0, "scaling_factor must be a number"),
        ("vae", "act_fn", "nothing", "describes no model that runs"),
        ("text_encoder", "num_hidden_layers", 1000, "num_hidden_layers = 1000, and its weights hold 2 blocks"),
        ("text_encoder", "hidden_size", 2**18, "CLIP encoders give 262168 channels"),
        ("text_encoder_2", "projection_dim", 2**18, "pooled_projection_dim is 40, and the text encoders'"),
        ("text_encoder_2", "hidden_act", "nothing", "describes no model that runs"),
        (
            "text_encoder_2",
            "max_position_embeddings",
            9,
            "model_max_length must be a whole number from 3 to 9, .*got 22",
        ),
        ("text_encoder_3", "vocab_size", 2**22, "has the shape"),
        ("text_encoder_3", "d_ff", 2**18, "has the shape"),
        ("text_encoder_3", "relative_attention_max_distance", 8, "must be above a quarter of .* = 8, got 8"),
        ("tokenizer", "model_max_length", 10**30, "model_max_length must be a whole number from 3 to 22, .*got 1000"),
        ("tokenizer", "model_max_length", None, "from 3 to 22, the encoders' positions, got nothing"),
        ("scheduler", "num_train_timesteps", 10**9, "num_train_timesteps must be a whole number"),
        ("transformer", "quantization_config", {"quant_method": "bitsandbytes"}, "quantised weights are not supported"),
        ("text_encoder_3", "quantization_config", {"a": 1}, "quantised weights are not supported"),
        ("transformer", "_class_name", "FluxTransformer2DModel", "FluxTransformer2DModel, and supported are"),
        ("vae", "_class_name", "AutoencoderTiny", "holds a AutoencoderTiny, and supported are: AutoencoderKL"),
    ],
)
def test_configurations_that_do_not_fit(folder, part, key, value, match):
    edit_config(folder, part, **{key: value})
    refused(folder, match)


@pytest.mark.parametrize("part", WEIGHTED)
def test_a_size_that_is_left_out_takes_no_default(folder, part):
    key = {"transformer": "num_layers", "vae": "scaling_factor", "text_encoder_3": "d_kv"}.get(part, "hidden_act")
    edit_json(config_path(folder, part), lambda config: config.pop(key))
    refused(folder, rf"{part}.* lacks {key}")


@pytest.mark.slow
def test_absurd_sizes_are_refused_fast_and_small(tiny_folder, tmp_path):
    """In a process of its own: a second and 100 MB for each, measured after the imports."""
    edits = [(part, key, 10**9) for part, key in SIZES]
    edits += [("transformer", "num_layers", 1000), ("transformer", "pos_embed_max_size", 4096)]
    edits += [("vae", "layers_per_block", 8), ("vae", "block_out_channels", [8] * 8)]
    edits += [("text_encoder", "num_hidden_layers", 1000), ("text_encoder_3", "d_ff", 2**18)]
    for number, (part, key, value) in enumerate(edits):
        edit_config(copied(tiny_folder, tmp_path / str(number)), part, **{key: value})
    copied(tiny_folder, tmp_path / "warm")
    script = """if True:
        import resource, sys, time
        from pathlib import Path
        from probing.errors import UserError
        from tests.backbones.model_folders import load
        folder = Path(sys.argv[1])
        for random_init in (False, True):
            load(folder / "warm", random_init=random_init)
            for number in range(int(sys.argv[2])):
                before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
                try:
                    load(folder / str(number), random_init=random_init)
                    raise SystemExit(f"{number} was loaded")
                except UserError:
                    pass
                print(number, time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path, str(len(edits))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 2 * len(edits)
    for number, seconds, kilobytes in lines:
        assert float(seconds) < 1 and int(kilobytes) < 100_000, (edits[int(number)], seconds, kilobytes)


def test_a_random_transformer_larger_than_memory_is_refused(folder, monkeypatch):
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 10 if name == "SC_PHYS_PAGES" else real(name))
    with pytest.raises(UserError, match=r"needs 0\.0 GiB, and this machine has 0\.0 GiB of memory"):
        load(folder, random_init=True)
