"""Serve a reward over HTTP: verl-omni's latent protocol, UniRL's JSON, and a health check.

``POST /v1/score`` takes safetensors (``latents``, ``prompt_embeds``, ``pooled_prompt_embeds``, ``u``, optionally
``seeds``) with the header ``x-drm-protocol-version: 1``; ``POST /score`` takes UniRL's requests of pictures in base64.
Both answer with calibrated scores. An input that cannot be scored is a status of 400 to 422 with one sentence, a
failure one of 500 to 503; neither is ever a score.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from probing.errors import UserError, shown
from probing.preferences.images import decode
from probing.reward import preload as preload  # re-exported: before anything is served
from probing.reward.batching import Busy, Job, Unusable, Worker
from probing.reward.latent_reward import LatentReward

PROTOCOL, HEADER = "1", "x-drm-protocol-version"
_MOST_ITEMS = 1024
# Seconds. A trainer asks between its updates, and a connection that the server closes at the moment in which its client
# uses it again is an error there: clients keep theirs for less (httpx 5 s, aiohttp 15 s) or as long as an update takes.
_KEEP_ALIVE = 600
_IDENTITY = ("request_id", "sample_id", "group_id", "source_rank", "policy_version", "idempotency_key")
_RANKS = {"latents": 4, "prompt_embeds": 3, "pooled_prompt_embeds": 2, "u": 1}


class Refused(Exception):
    """A request that gets a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def create_app(
    reward: LatentReward,
    *,
    name: str = "latent_reward",
    token: str | None = None,
    batch_size: int = 16,
    wait: float = 0.005,
    queue_size: int = 4096,
    most_bytes: int = 64 * 2**20,
) -> FastAPI:
    """Make the server; its worker starts with it.

    Args:
        reward: The reward.
        name: Name of the reward in UniRL's requests.
        token: Every request needs ``Authorization: Bearer TOKEN``, except the health checks; None asks for none.
        batch_size: Most items of one forward. With 1, a score does not depend on other requests to the last bit.
        wait: Seconds that the first item of a batch waits for others.
        queue_size: Most waiting items; more are refused with 503.
        most_bytes: Largest body of a request.

    Raises:
        UserError: The backbone is not here, or is another one.
    """
    worker = Worker(reward, batch_size=batch_size, wait=wait, queue_size=queue_size)
    version = version_of(reward)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(worker.close)

    app = FastAPI(title="dit-probing reward", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.worker = worker

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        headers = {"retry-after": "1"} if error.status == 503 else {}
        return JSONResponse({"error": str(error)}, error.status, headers)

    async def body_of(request: Request) -> bytes:
        if token is not None:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                raise Refused(401, "The request has no valid token; send the header Authorization: Bearer TOKEN.")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > most_bytes:
                raise Refused(413, f"The request is larger than {most_bytes:,} bytes; send fewer items at once.")
        return bytes(body)

    @app.get("/healthz")
    async def healthz() -> Response:
        status = {"status": "ok" if worker.alive else "stopped", "waiting": worker.waiting, "version": version}
        return JSONResponse(status, 200 if worker.alive else 503)

    @app.get("/health")
    async def health() -> Response:
        status = {"status": "ok" if worker.alive else "stopped", "rewards": {name: ["score"]}}
        return JSONResponse(status, 200 if worker.alive else 503)

    @app.post("/v1/score")
    async def score_latents(request: Request) -> Response:
        body = await body_of(request)
        if request.headers.get(HEADER) != PROTOCOL:
            raise Refused(400, f"The header {HEADER} must be {PROTOCOL}, got {shown(request.headers.get(HEADER, ''))}.")
        job = await asyncio.to_thread(latent_job, worker, body)
        scores = await _scores(worker, [job])
        return JSONResponse({"protocol_version": PROTOCOL, "raw_scores": scores})

    @app.post("/score")
    async def score_pictures(request: Request) -> Response:
        body = await body_of(request)
        requests = read_requests(body, name, version)
        seed = int(reward.manifest.extraction["seed"])
        answers = await asyncio.to_thread(lambda: [_picture_job(one, seed) for one in requests])
        jobs = [answer for answer in answers if isinstance(answer, Job)]
        _submit(worker, jobs)
        results: list[dict[str, Any]] = []
        errors: list[dict[str, str]] = []
        for answer in answers:
            try:
                if isinstance(answer, str):
                    raise UserError(answer)
                results.append({name: {"score": await asyncio.wrap_future(answer.score)}})
                errors.append({})
            except (UserError, Unusable) as error:
                results.append({})
                errors.append({name: str(error)})
        identities = [{key: one.get(key) for key in _IDENTITY} | {"scorer_version": version} for one in requests]
        content = {"protocol_version": PROTOCOL, "results": results, "errors": errors, "identities": identities}
        return JSONResponse(content)

    return app


def version_of(reward: LatentReward) -> str:
    """Return 16 hexadecimal characters that differ between rewards whose scores differ."""
    from probing.probes import describe_probe

    described, arrays = describe_probe(reward.probe)
    digest = hashlib.blake2b(json.dumps([reward.manifest.to_json(), described], sort_keys=True).encode(), digest_size=8)
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    if reward.adapter is not None:
        settings, state = reward.adapter
        digest.update(settings.to_json().encode())
        for name in sorted(state):
            digest.update(name.encode() + state[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def latent_job(worker: Worker, body: bytes) -> Job:
    """Read a request of verl-omni's latent protocol.

    Raises:
        Refused: It is not one, or the reward cannot score it.
    """
    try:
        tensors = load(body)
    except (SafetensorError, ValueError, KeyError) as error:
        raise Refused(400, f"The body is no safetensors file ({error}).") from error
    for name, rank in _RANKS.items():
        if name not in tensors:
            raise Refused(422, f"The request lacks the tensor {name}; it needs {', '.join(_RANKS)}.")
        tensor = tensors[name]
        if tensor.ndim != rank or tensor.shape[0] != 1:
            raise Refused(422, f"{name} has shape {tuple(tensor.shape)}, expected {rank} dimensions and one item.")
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise Refused(422, f"{name} holds values that are not finite numbers.")
    manifest, sigma = worker.reward.manifest, float(tensors["u"][0])
    sigmas = sorted({site.sigma for site in manifest.sites})
    if not any(abs(sigma - own) < 1e-6 for own in sigmas):
        have = ", ".join(f"{own:g}" for own in sigmas)
        raise Refused(422, f"The reward reads noise level {have}, got u = {sigma:g}; set noise_level to one of them.")
    if any(site.stream == "text" for site in manifest.sites):
        raise Refused(422, "The reward reads the text stream, whose padding embeddings do not show; use POST /score.")
    try:
        latents = worker.reader.check_latents(tensors["latents"])
        conditioning = worker.reader.conditioning_of(tensors["prompt_embeds"], tensors["pooled_prompt_embeds"])
    except UserError as error:
        raise Refused(422, str(error)) from error
    return Job(
        _seed(tensors.get("seeds"), int(manifest.extraction["seed"])), latents=latents, conditioning=conditioning
    )


def read_requests(body: bytes, name: str, version: str) -> Sequence[Mapping[str, Any]]:
    """Read a body of UniRL's requests.

    Raises:
        Refused: It is not one, or asks for another reward or version.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is no JSON ({error}).") from error
    requests = content.get("requests") if isinstance(content, dict) else None
    if not isinstance(requests, list) or not requests or not all(isinstance(one, dict) for one in requests):
        raise Refused(422, "The body needs requests, a list of objects.")
    if str(content.get("protocol_version", PROTOCOL)) != PROTOCOL:
        raise Refused(422, f"protocol_version must be {PROTOCOL}, got {shown(content['protocol_version'])}.")
    if len(requests) > _MOST_ITEMS:
        raise Refused(413, f"Got {len(requests):,} requests at once, at most {_MOST_ITEMS:,} are taken; send fewer.")
    for one in requests:
        wanted = one.get("required_rewards", [name])
        others = [other for other in wanted if other != name] if isinstance(wanted, list) else [wanted]
        if others:
            raise Refused(422, f"There is no reward {shown(others[0])}; this server has {name}.")
        if one.get("scorer_version") not in (None, version):
            raise Refused(409, f"This reward has version {version}, and the request expects another.")
    return requests


def _picture_job(request: Mapping[str, Any], seed: int) -> Job | str:
    """Make the job of one of UniRL's requests, or a sentence about what is wrong with it."""
    history = request.get("history")
    last = history[-1] if isinstance(history, list) and history else None
    text = last.get("text") if isinstance(last, dict) else None
    picture = last.get("image_b64") if isinstance(last, dict) else None
    if not isinstance(text, str) or not isinstance(picture, str):
        return "history must end with an object that has text and image_b64"
    try:
        return Job(
            seed, picture=decode(base64.b64decode(picture, validate=True), "image_b64", "the request"), prompt=text
        )
    except binascii.Error as error:
        return f"image_b64 is not base64 ({error})"
    except UserError as error:
        return str(error)


def _seed(seeds: Tensor | None, default: int) -> int:
    if seeds is None:
        return default
    if seeds.numel() != 1 or seeds.is_floating_point() or not 0 <= int(seeds.flatten()[0]) < 2**32:
        raise Refused(422, "seeds holds one integer from 0 to 4294967295.")
    return int(seeds.flatten()[0])


def _submit(worker: Worker, jobs: list[Job]) -> None:
    try:
        worker.submit(jobs)
    except (Busy, Unusable) as error:
        raise Refused(503, str(error)) from error


async def _scores(worker: Worker, jobs: list[Job]) -> list[float]:
    _submit(worker, jobs)
    try:
        return [await asyncio.wrap_future(job.score) for job in jobs]
    except UserError as error:
        raise Refused(422, str(error)) from error
    except Unusable as error:
        raise Refused(500, str(error)) from error


def bind(host: str, port: int) -> socket.socket:
    """Take an address; who connects waits until the server runs.

    Raises:
        UserError: It is in use, or none of this machine.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Two sockets that do not listen yet could have the same address.
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"Cannot serve at {host}:{port} ({reason}); give another --host or --port.") from error
    return listener


def serve_app(app: FastAPI, listener: socket.socket) -> None:
    """Run the server at the address of :func:`bind` until it is interrupted."""
    with suppress(KeyboardInterrupt):
        make_server(app).run([listener])


def make_server(app: FastAPI) -> uvicorn.Server:
    """Make what :func:`serve_app` runs, for callers that end it themselves."""
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_keep_alive=_KEEP_ALIVE))
