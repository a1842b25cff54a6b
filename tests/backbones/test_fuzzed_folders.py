"""Random damage to a model folder: the same features, another identity, or one sentence."""

from __future__ import annotations

import json
import resource
import shutil
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from probing.backbones import part_digests, resolve
from probing.errors import UserError
from tests.backbones.model_folders import load

UNCHECKED = {"deadline": None, "suppress_health_check": list(HealthCheck)}
PROMPTS = ["a small red circle", "star " * 40]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([10**9, 2**64, 10**30, -(10**9), 1e300, 0.0, 1e-5, 0.5, -0.1]),
    st.text(max_size=5),
    st.sampled_from(["gelu", "silu", "relu", "layer_norm", "float16", "sdpa", "left", "eager", "<pad>", "</s>"]),
    st.lists(st.integers(-2, 40), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
EXTRA_KEYS = [
    "output_hidden_states",
    "return_dict",
    "is_decoder",
    "torchscript",
    "chunk_size_feed_forward",
    "tie_word_embeddings",
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "pruned_heads",
    "dtype",
    "model_type",
    "add_prefix_space",
    "extra_special_tokens",
    "added_tokens_decoder",
    "padding_side",
    "truncation_side",
    "tokenizer_class",
    "tokenizer_file",
    "latents_mean",
]


@st.composite
def damages(draw, files: list[str]):
    """A file of the folder, and a change of its bytes."""
    name = draw(st.sampled_from(files))
    kinds = ["flip", "cut", "delete", "garbage", "swap"] + ["edit"] * 6 * name.endswith("config.json")
    kinds += ["edit"] * 6 * name.endswith(("model_index.json", "tokenizer.json"))
    kind = draw(st.sampled_from(kinds))
    if kind == "edit":
        change = draw(st.sampled_from(["set", "set", "drop", "add"]))
        return name, kind, (change, draw(st.integers(0, 200)), draw(st.sampled_from(EXTRA_KEYS)), draw(VALUES))
    if kind == "garbage":
        return name, kind, draw(st.binary(max_size=40))
    if kind == "swap":
        return name, kind, draw(st.sampled_from(files))
    # The beginning of a file, where headers are, as often as the rest.
    return name, kind, (draw(st.booleans()), draw(st.integers(0, 2**24)))


def damage(folder: Path, name: str, kind: str, how) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    if kind == "delete":
        path.unlink()
        return
    if kind == "garbage":
        content = how
    elif kind == "swap":
        content = (folder / how).read_bytes()
    elif kind == "edit":
        content = edited(json.loads(content), *how)
    else:
        early, position = how
        position %= min(len(content), 400) if early else len(content)
        if kind == "cut":
            content = content[:position]
        else:
            content[position] ^= 1 << (how[1] % 8)
    path.write_bytes(content)


def edited(config, change, number, key, value):
    places = [(config, one) for one in config]
    for inner in list(config.values()):
        if isinstance(inner, dict):
            places += [(inner, one) for one in list(inner)[:50]]
    owner, chosen = places[number % len(places)]
    if change == "drop":
        del owner[chosen]
    elif change == "add":
        config[key] = value
    else:
        owner[chosen] = value
    return json.dumps(config).encode()


def features(folder):
    backbone = load(folder)
    conditioning = backbone.encode_prompts(PROMPTS)
    assert len(backbone.prompt_tokens(PROMPTS)) == 2
    noise = torch.linspace(-2, 2, 4 * 8 * 8).reshape(1, 4, 8, 8).expand(2, -1, -1, -1)
    with torch.inference_mode():
        velocity = backbone.transformer(**backbone.inputs(noise, conditioning, 0.5))[0]
    latents = backbone.encode_images(torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16))
    actual = [
        conditioning.tensors["encoder_hidden_states"],
        conditioning.tensors["pooled_projections"],
        velocity,
        latents,
    ]
    return [*actual, *conditioning.parts.values()], backbone.parts


@pytest.fixture(scope="module")
def sound(tiny_folder):
    return features(tiny_folder)


@pytest.fixture(scope="module")
def files(tiny_folder):
    return sorted(str(path.relative_to(tiny_folder)) for path in tiny_folder.rglob("*.*") if path.is_file())


def check(tiny_folder, target, sound, name, kind, how):
    """Damage one file; the folder is as before afterwards."""
    start = time.monotonic()
    damage(target, name, kind, how)
    try:
        planned = part_digests(resolve(str(target)), random_init=False, seed=0, use_t5=True)
        actual, parts = features(target)
    except UserError as error:
        message = str(error)
    else:
        message = ""
        assert parts == planned
        same = all(torch.equal(one, other) for one, other in zip(actual, sound[0], strict=True))
        assert same or parts != sound[1], "other features under the same identity"
    finally:
        shutil.copyfile(tiny_folder / name, target / name)
    assert "\n" not in message and len(message) < 1000
    assert time.monotonic() - start < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 2**20


def property_of(examples):
    @settings(max_examples=examples, phases=[Phase.generate], derandomize=True, **UNCHECKED)
    @given(data=st.data())
    def prove(tiny_folder, target, sound, files, data):
        check(tiny_folder, target, sound, *data.draw(damages(files)))

    return prove


@pytest.fixture
def target(tiny_folder, tmp_path):
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


test_a_damaged_folder = property_of(40)
test_many_damaged_folders = pytest.mark.slow(property_of(800))
