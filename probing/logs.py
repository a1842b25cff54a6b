"""Where the events of a command go beside the terminal: JSON lines, TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from probing.errors import UserError
from probing.progress import Sink, send_events

LOGS, TRACKERS = ("text", "json"), ("tensorboard", "wandb")
TRACKED = Path("cache/tracked")
"""Folder of TensorBoard's files."""


def start(log: str, tracker: str | None, command: str) -> None:
    """Send the events of this process where ``--log`` and ``--track`` say.

    Args:
        log: One of :data:`LOGS`: ``json`` writes one object a line on stderr instead of bars and sentences.
        tracker: One of :data:`TRACKERS`, or None.
        command: Names the run of a tracker.

    Raises:
        UserError: Another name, or a library that is not installed.
    """
    if log not in LOGS:
        raise UserError(f"--log is one of {', '.join(LOGS)}, got {log!r:.80}.")
    if log == "json":
        send_events(write_json, instead=True)
    if tracker is not None:
        send_events(_tracker(tracker, command))


def write_json(event: dict[str, Any]) -> None:
    """Write an event as one line of JSON on stderr."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    print(json.dumps({"time": now, **event}, ensure_ascii=False), file=sys.stderr, flush=True)


def _tracker(name: str, command: str) -> Sink:
    if name not in TRACKERS:
        raise UserError(f"--track is one of {', '.join(TRACKERS)}, got {name!r:.80}.")
    try:
        from accelerate.tracking import TensorBoardTracker, WandBTracker, is_tensorboard_available, is_wandb_available

        available = is_tensorboard_available() if name == "tensorboard" else is_wandb_available()
    except ImportError:
        available = False
    if not available:
        raise UserError(f"--track {name} needs a library; pip install 'dit-probing[track]', or leave --track out.")
    tracker: Any = TensorBoardTracker(command, TRACKED) if name == "tensorboard" else WandBTracker(command)
    if hasattr(tracker, "start"):
        tracker.start()

    def log(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            work = event["work"].replace(" ", "-")
            tracker.log(
                {f"{work}/{n}": event[n] for n in ("done", "per_second") if event[n] is not None}, step=event["done"]
            )
        elif event["event"] in ("done", "stopped", "failed"):
            tracker.finish()

    return log
