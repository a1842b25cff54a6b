"""The server keeps the contracts of its clients, loses no request, and never answers a failure with a score."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import numpy as np
import psutil
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import save

import probing
from probing.errors import UserError
from probing.reward import train_reward
from probing.reward.__main__ import main
from probing.reward.server import bind, create_app, make_server, version_of
from probing.reward.trainers import FlowFactoryReward, flow_grpo_score
from tests.fakes.tiny_sd3 import T5_LENGTH

DRM = {"content-type": "application/octet-stream", "x-drm-protocol-version": "1"}
SIGMA = 0.4


@pytest.fixture(scope="module")
def reward(tiny_folder, tmp_path_factory):
    data = probing.load_pairs("testbed", where="facet == 'quality'", limit=96)
    settings = {"resolution": 16, "t5_length": T5_LENGTH, "sigmas": (SIGMA,), "streams": ("image", "text")}
    output = tmp_path_factory.mktemp("served") / "tiny.zarr"
    store = probing.extract(tiny_folder, data, output=output, device="cpu", **settings)
    head = train_reward(store, blocks=(1, 3), streams=("image",))
    return probing.LatentReward.load(head.save(output.parent / "reward"), model=tiny_folder, device="cpu")


@pytest.fixture(scope="module")
def client(reward):
    with TestClient(create_app(reward)) as client:
        yield client


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def encoded(image):
    content = io.BytesIO()
    image.save(content, "png")
    return base64.b64encode(content.getvalue()).decode()


def drm_request(reward, seed=0, **changes):
    """What verl-omni's client sends for one sample; written from its protocol."""
    conditioning = reward.opened.encode_prompts(["a small red circle"])
    tensors = {
        "latents": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)),
        "prompt_embeds": conditioning.tensors["encoder_hidden_states"].clone(),
        "pooled_prompt_embeds": conditioning.tensors["pooled_projections"].clone(),
        "u": torch.tensor([SIGMA], dtype=torch.float32),
        "seeds": torch.tensor([0], dtype=torch.int64),
    } | changes
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def unirl_request(image, text="a small red circle", **changes):
    """One of UniRL's wire requests."""
    return {
        "history": [{"text": text, "image_b64": encoded(image)}],
        "required_rewards": ["latent_reward"],
        "metadata": None,
        "request_id": "r1",
        "sample_id": "s1",
        "group_id": "g1",
        "source_rank": 3,
        "policy_version": 7,
        "scorer_version": None,
        "idempotency_key": "k1",
    } | changes


def test_latents_are_scored_as_verl_omni_asks(client, reward):
    tensors = drm_request(reward)
    answer = client.post("/v1/score", content=save(tensors), headers=DRM)
    assert answer.status_code == 200 and answer.json()["protocol_version"] == "1"
    (score,) = answer.json()["raw_scores"]
    assert score == pytest.approx(reward.score_latents(tensors["latents"], "a small red circle")[0], rel=1e-5)
    other = client.post("/v1/score", content=save(drm_request(reward, seeds=torch.tensor([1]))), headers=DRM)
    assert other.json()["raw_scores"][0] != score
    default = client.post("/v1/score", content=save(drm_request(reward, seeds=None)), headers=DRM)
    assert default.json()["raw_scores"][0] == pytest.approx(score, rel=1e-6)


def test_pictures_are_scored_as_unirl_asks(client, reward):
    body = {"protocol_version": "1", "requests": [unirl_request(picture(n)) for n in range(3)]}
    answer = client.post("/score", json=body).json()
    expected = reward.score("a small red circle", [picture(n) for n in range(3)])
    scores = [result["latent_reward"]["score"] for result in answer["results"]]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert answer["errors"] == [{}, {}, {}] and answer["protocol_version"] == "1"
    identity = answer["identities"][0]
    sent = body["requests"][0]
    for key in ("request_id", "sample_id", "group_id", "source_rank", "policy_version", "idempotency_key"):
        assert identity[key] == sent[key]
    assert identity["scorer_version"] == version_of(reward)
    assert client.get("/health").json()["rewards"] == {"latent_reward": ["score"]}
    assert client.get("/healthz").json()["status"] == "ok"


def test_one_bad_picture_spoils_no_other(client):
    bad = unirl_request(picture(), history=[{"text": "words", "image_b64": base64.b64encode(b"no picture").decode()}])
    missing = unirl_request(picture(), history=[])
    answer = client.post("/score", json={"requests": [bad, unirl_request(picture()), missing]})
    assert answer.status_code == 200
    results, errors = answer.json()["results"], answer.json()["errors"]
    assert results[0] == {} and results[2] == {} and "score" in results[1]["latent_reward"]
    assert "latent_reward" in errors[0] and errors[1] == {} and "history must end" in errors[2]["latent_reward"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": torch.full((1, 4, 8, 8), torch.nan)}, "latents holds values that are not finite"),
        ({"latents": torch.zeros(1, 4, 9, 9)}, "expected (item, 4, 8, 8)"),
        ({"latents": torch.zeros(2, 4, 8, 8)}, "expected 4 dimensions and one item"),
        ({"latents": None}, "lacks the tensor latents"),
        ({"u": torch.tensor([0.9])}, "reads noise level 0.4, got u = 0.9"),
        ({"prompt_embeds": torch.zeros(1, 5, 7)}, "expected 48 as tiny-sd3 has"),
        ({"pooled_prompt_embeds": torch.full((1, 40), torch.inf)}, "not finite"),
        ({"seeds": torch.tensor([-1])}, "seeds holds one integer"),
        ({"latents": torch.zeros(1, 4, 8, 8, dtype=torch.int64)}, "not finite numbers"),
    ],
)
def test_bad_latents_get_422_and_a_sentence(client, reward, changes, message):
    answer = client.post("/v1/score", content=save(drm_request(reward, **changes)), headers=DRM)
    assert answer.status_code == 422 and message in answer.json()["error"] and "raw_scores" not in answer.json()


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"junk", DRM, 400, "no safetensors file"),
        (b"", DRM, 400, "no safetensors file"),
        (b"junk", {}, 400, "x-drm-protocol-version must be 1"),
    ],
)
def test_malformed_bodies_get_400(client, content, headers, status, message):
    answer = client.post("/v1/score", content=content, headers=headers)
    assert answer.status_code == status and message in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "no JSON"),
        (b"[]", 422, "needs requests"),
        (b'{"requests": []}', 422, "needs requests"),
        (b'{"requests": [{}], "protocol_version": "2"}', 422, "protocol_version must be 1"),
        (b'{"requests": [{"required_rewards": ["hpsv3"]}]}', 422, "There is no reward 'hpsv3'"),
        (b'{"requests": [{"scorer_version": "other"}]}', 409, "the request expects another"),
        (b'{"requests": [' + b"{}," * 1100 + b"{}]}", 413, "send fewer"),
    ],
)
def test_malformed_requests_get_a_sentence(client, body, status, message):
    answer = client.post("/score", content=body)
    assert answer.status_code == status and message in answer.json()["error"]


def test_a_large_body_and_a_missing_token_are_refused(reward):
    token = "a-token-of-many-letters"
    with TestClient(create_app(reward, token=token, most_bytes=1000)) as client:
        assert client.post("/score", content=b"{}").status_code == 401
        assert client.post("/score", content=b"{}", headers={"authorization": "Bearer wrong"}).status_code == 401
        large = client.post("/score", content=b"x" * 2000, headers={"authorization": f"Bearer {token}"})
        assert large.status_code == 413 and "larger than 1,000 bytes" in large.json()["error"]
        assert client.get("/healthz").status_code == 200


def test_a_failure_of_the_backbone_is_an_error_and_no_score(reward, monkeypatch):
    with TestClient(create_app(reward)) as client:
        body = {"requests": [unirl_request(picture())]}
        monkeypatch.setattr(reward.opened, "rewards", lambda *_: np.array([np.nan]))
        answer = client.post("/score", json=body).json()
        assert answer["results"] == [{}] and "not finite" in answer["errors"][0]["latent_reward"]
        latents = client.post("/v1/score", content=save(drm_request(reward)), headers=DRM)
        assert latents.status_code == 500 and "not finite" in latents.json()["error"]

        def fail(*_):
            raise RuntimeError("the device is gone")

        monkeypatch.setattr(reward.opened, "rewards", fail)
        latents = client.post("/v1/score", content=save(drm_request(reward)), headers=DRM)
        assert latents.status_code == 500 and "the device is gone" in latents.json()["error"]


def test_a_full_queue_and_a_stopped_worker_get_503(reward, monkeypatch):
    app = create_app(reward, queue_size=2)
    with TestClient(app) as client:
        body = {"requests": [unirl_request(picture(n)) for n in range(3)]}
        answer = client.post("/score", json=body)
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        app.state.worker.close()
        answer = client.post("/score", json={"requests": body["requests"][:1]})
        assert answer.status_code == 503 and "has stopped" in answer.json()["error"]
        assert client.get("/healthz").status_code == 503


@contextmanager
def served(reward):
    """Serve a reward at a real socket; yield its port."""
    listener, server = bind("127.0.0.1", 0), make_server(create_app(reward))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=20)


@pytest.mark.slow
def test_a_trainer_may_pause_between_requests(reward):
    """It keeps its connection through an update, which takes longer than servers usually wait."""
    body = save(drm_request(reward))
    with served(reward) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for pause in (0, 20):
            time.sleep(pause)
            connection.request("POST", "/v1/score", body, DRM)
            answer = connection.getresponse()
            assert answer.status == 200 and len(json.loads(answer.read())["raw_scores"]) == 1
        connection.close()


@pytest.mark.parametrize("requests", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_concurrent_requests_are_all_answered(reward, requests):
    """Over a real socket: every answer is that of its own item."""
    bodies = [save(drm_request(reward, seed=seed)) for seed in range(20)]
    expected = [
        reward.score_latents(drm_request(reward, seed=seed)["latents"], "a small red circle")[0] for seed in range(20)
    ]

    async def ask(client, number):
        answer = await client.post("/v1/score", content=bodies[number % 20], headers=DRM)
        answer.raise_for_status()
        return answer.json()["raw_scores"][0]

    async def all_of_them(port):
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=600, limits=limits) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(requests)))

    with served(reward) as port:
        scores = asyncio.run(all_of_them(port))
    np.testing.assert_allclose(scores, [expected[number % 20] for number in range(requests)], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_memory_stays_flat_and_scores_the_same(client, reward):
    body, scores, resident = save(drm_request(reward)), set(), []
    for number in range(900):
        answer = client.post("/v1/score", content=body, headers=DRM)
        scores.add(answer.json()["raw_scores"][0])
        if number % 300 == 299:
            resident.append(psutil.Process().memory_info().rss)
    assert len(scores) == 1 and resident[-1] - resident[0] < 20 * 2**20


@pytest.mark.slow
def test_the_command_serves_after_nnsight_was_loaded(tiny_folder, reward, tmp_path):
    """nnsight patches ``object``, after which some libraries can no longer be imported."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = reward.save(tmp_path / "reward")
    options = ["--reward", str(folder), "--model", str(tiny_folder), "--device", "cpu", "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-m", "probing.reward", "serve", *options])
    try:
        for _ in range(600):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/score", content=save(drm_request(reward)), headers=DRM)
        assert answer.status_code == 200 and len(answer.json()["raw_scores"]) == 1
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_an_address_in_use_is_said_before_anything_is_loaded(tmp_path, capsys):
    with bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--reward", "clip", "--model", "nowhere", "--port", port]) == 2
    assert f"Cannot serve at 127.0.0.1:{port} (Address already in use); give another" in capsys.readouterr().err


def test_flow_grpo_calls_it_with_tensors_arrays_and_pictures(reward):
    score = flow_grpo_score(reward)
    pictures = [picture(0), picture(1)]
    arrays = np.stack([np.asarray(p) for p in pictures])
    tensor = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255
    expected = reward.score(["a", "b"], pictures)
    for images in (pictures, arrays, tensor):
        scores, extra = score(images, ["a", "b"], [{}, {}])
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
        assert extra == {}
    with pytest.raises(UserError, match=r"outside \[0, 1\]"):
        score(tensor * 2 - 1, ["a", "b"], None)
    with pytest.raises(UserError, match="expected uint8"):
        score(arrays.astype(np.float32), ["a", "b"], None)


def test_flow_factory_calls_it_by_prompt_and_image(reward):
    model = FlowFactoryReward(reward)
    output = model(prompt=["a", "b"], image=[picture(0), picture(1)], video=None)
    np.testing.assert_allclose(output.rewards.numpy(), reward.score(["a", "b"], [picture(0), picture(1)]), rtol=1e-5)
    with pytest.raises(UserError, match="scores pictures"):
        model(prompt=["a"], video=[[picture(0)]])
