"""Samples the program of its argument and prints the number that it asked for, then those of the samples."""

import subprocess
import sys
import time

from unspool.capture.kernel import Sampler
from unspool.capture.records import samples
from unspool.capture.request import Request


def main(program: str) -> int:
    """0 when there was a whole sample within a minute."""
    found: set[int] = set()
    with subprocess.Popen([program, "20", "spin"], stdout=subprocess.DEVNULL) as process:
        with Sampler(Request(pids=(process.pid,), frequency=499)) as sampler:
            sampler.start()
            deadline = time.monotonic() + 60
            while not found and time.monotonic() < deadline:
                time.sleep(0.02)
                found |= {sample.pid for sample in samples(sampler.drain()) if sample.stop.is_end}
        process.kill()
    print(process.pid, *found)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
