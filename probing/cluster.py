"""A Ray cluster: that of ``RAY_ADDRESS``, or one on this machine. Ray is optional."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import cloudpickle

from probing.errors import UserError

Engine = Literal["local", "ray"]
"""What runs workers: processes or threads of this machine, or a Ray cluster."""
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@contextmanager
def cluster() -> Iterator[Any]:
    """Connect to the cluster, unless this process is connected; gives the module ``ray``.

    Raises:
        UserError: Ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError(
            "--engine ray needs Ray, which is not installed; pip install 'dit-probing[ray]', or leave --engine out."
        ) from None
    began = not ray.is_initialized()
    if began:
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    # Progress is shown here.
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield ray
    except ray.exceptions.RayError as error:
        cause = _cause(error)
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from error
        raise
    finally:
        if began:
            ray.shutdown()


def map_on_ray(function: Callable[[_In], _Out], inputs: Iterable[_In]) -> Iterator[_Out]:
    """Map in order, a task of one core an input; a task whose process dies is run again.

    Raises:
        UserError: Ray is not installed, or what a task raised.
    """
    with cluster() as ray:
        shared = ray.put(cloudpickle.dumps(function))
        task = ray.remote(num_cpus=1, max_retries=-1)(_call)
        for result in [task.remote(shared, cloudpickle.dumps(one)) for one in inputs]:
            yield ray.get(result)


def _call(function: bytes, one: bytes) -> Any:
    return cloudpickle.loads(function)(cloudpickle.loads(one))


def _cause(error: BaseException) -> BaseException:
    """Return the error that a task raised."""
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None and cause is not error:
        error = cause
    return error
