"""Samples the program of its argument and prints the number that it asked for, then those of the samples."""

import subprocess
import sys
import time

from unspool.capture.kernel import Sampler
from unspool.capture.records import samples
from unspool.capture.request import Request

with subprocess.Popen([sys.argv[1], "20", "spin"], stdout=subprocess.DEVNULL) as process:
    found: set[int] = set()
    with Sampler(Request(pids=(process.pid,), frequency=499)) as sampler:
        sampler.start()
        deadline = time.monotonic() + 60
        while not found and time.monotonic() < deadline:
            time.sleep(0.02)
            found |= {sample.pid for sample in samples(sampler.drain()) if sample.stop.is_end}
    process.kill()
print(process.pid, *found)
sys.exit(0 if found else 1)
