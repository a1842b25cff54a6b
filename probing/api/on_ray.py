"""Extract on a Ray cluster: actors hold the model, runs of items are the rows of a Ray dataset."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cloudpickle

from probing.cluster import cluster
from probing.features.work import forwards_of
from probing.paths import is_remote
from probing.progress import progress

if TYPE_CHECKING:
    from probing.api.extraction import Extraction

_PAUSE = 1.0
"""Seconds between looks at a run that another process computes."""


def run_on_ray(extraction: Extraction, workers: int) -> int:
    """Compute by actors what the store lacks; a run whose actor dies is computed by another.

    The cluster is that of ``RAY_ADDRESS``, or one on this machine. Every node must see the store, the model and the
    pictures under the same paths or URLs.

    Args:
        extraction: The work.
        workers: Number of actors, with one accelerator each if there are any.

    Returns:
        The number of items that were computed.

    Raises:
        UserError: Ray is not installed, or an actor has found a mistake in the request.
    """
    missing = {run: forwards_of(segments) for run, segments in extraction.work.segments().items()}
    # Actors may have another working directory; a database of kept inputs may not lie on a network disk.
    output = extraction.output if is_remote(extraction.output) else extraction.output.absolute()
    sent = cloudpickle.dumps(replace(extraction, output=output, keep_inputs=0))
    on_device = {"num_gpus": 1} if extraction.device_type == "cuda" else {"num_cpus": 1}
    computed = 0
    with cluster() as ray, progress(sum(missing.values()), extraction.plan.spec.name, "forwards") as bar:
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items([{"run": run} for run in missing], override_num_blocks=len(missing))
        done = rows.map_batches(
            _Actor,
            fn_constructor_args=(ray.put(sent),),
            batch_size=1,
            concurrency=min(workers, len(missing)),
            max_restarts=-1,
            max_task_retries=-1,
            **on_device,
        )
        for row in done.iter_rows():
            computed += row["items"]
            bar.update(missing[row["run"]])
    return computed


class _Actor:
    """A process of the cluster with a model of its own."""

    def __init__(self, payload: Any) -> None:
        import ray

        content = ray.get(payload) if isinstance(payload, ray.ObjectRef) else payload
        extraction: Extraction = cloudpickle.loads(content)
        # Ray shows each actor its own accelerators alone.
        self._stack = ExitStack()
        self._computer = self._stack.enter_context(extraction.planned_again(extraction.device).join())

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        runs = [int(run) for run in batch["run"]]
        return {"run": runs, "items": [self._compute(run) for run in runs]}

    def _compute(self, run: int) -> int:
        computer = self._computer
        while not computer.claim(run):
            # Of an actor that died, or of a command that works on the same store.
            if computer.is_whole(run):
                return 0
            time.sleep(_PAUSE)
        if computer.is_whole(run):
            computer.release(run)
            return 0
        items = sum(part.stop - part.start for part in computer.work.segments_of(run, computer.store))
        computer.write(run, computer.compute(run))
        return items

    def __del__(self) -> None:
        stack = getattr(self, "_stack", None)
        if stack is not None:
            stack.close()
