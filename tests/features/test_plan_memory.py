"""The plan's memory against the peak of a process that extracts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PEAK = """
import json, re, sys, tempfile
import probing
from probing.api.extraction import plan_extraction

model, limit, settings = json.loads(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    pairs = probing.load_pairs("testbed", limit=limit)
    extraction = plan_extraction(model, pairs, output=folder + "/s.zarr", device="cpu", **settings)
    extraction.run()
    # The peak in rusage is that of the process which started this one, if that is larger.
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
    print(extraction.plan.host_peak("cpu"), 1024 * peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(
    ("model", "limit", "settings"),
    [
        ("testbed-xs", 200, {"streams": ["image", "text"]}),
        ("testbed-l", 600, {"streams": ["image", "text"], "reductions": ["mean", "tokens"]}),
        ("testbed-m", 800, {"reductions": ["mean", "std", "max", "grid4"], "sigmas": [0.005, 0.3, 0.6]}),
    ],
)
def test_the_plan_is_within_15_percent(model, limit, settings):
    done = subprocess.run(
        [sys.executable, "-c", PEAK, json.dumps([model, limit, settings])],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    planned, measured = map(int, done.stdout.split()[-2:])
    assert measured / planned == pytest.approx(1, abs=0.15)
