"""How a live page bears an hour: what each second costs, how fast the views answer, and the memory of the page's process.

    .venv/bin/python bench/live.py [MINUTES]

An hour at 99 Hz on two CPUs is 712,800 samples in 3,600 commits. Stacks are as uneven as real ones: few are seen often, most of them rarely
(60,000 distinct ones in an hour), 400 threads, 20,000 frames whose names come a second after them. The rows are made by the recorder's own
writer and read by the page's own source. Between two questions there is always a new commit, so that no answer is one that was kept.
"""

from __future__ import annotations

import json
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from store.recordings import HEADER, MONOTONIC, SECOND, Scene  # noqa: E402 - the tests' own helpers

from unspool.model.symbol import Symbol  # noqa: E402
from unspool.model.verdict import Stop, Trust  # noqa: E402
from unspool.store import wire  # noqa: E402
from unspool.store.feed import FeedingWriter  # noqa: E402
from unspool.web.live import LiveSource, LiveViews  # noqa: E402
from unspool.web.query import Query  # noqa: E402

A_SECOND = 198
THREADS, FRAMES, STACKS = 400, 20_000, 60_000
DEPTH = 32
ASKED = 5
"""How often each view is asked at each stop."""
STOPS = (1, 10, 30, 60)
"""Minutes after which the views are asked."""
VIEWS: dict[str, tuple[tuple[str, str], ...]] = {
    "tree": (),
    "functions": (),
    "timeline": (),
    "summary": (),
    "quality": (),
    "tree, one CPU": (("cpu", "0"),),
}


def main() -> None:
    """Make the messages, and read them in a process of its own."""
    if sys.argv[1:2] == ["--read"]:
        read(Path(sys.argv[2]))
        return
    minutes = int(sys.argv[1]) if len(sys.argv) > 1 else STOPS[-1]
    with tempfile.TemporaryDirectory() as name:
        messages = Path(name, "messages")
        start = time.perf_counter()
        size = write(Path(name), messages, minutes * 60)
        took = time.perf_counter() - start
        print(f"{minutes} minutes: {minutes * 60 * A_SECOND:,} samples, {size / 2**20:.0f} MB on the wire, made in {took:.0f} s")
        subprocess.run([sys.executable, __file__, "--read", str(messages)], check=True)


def write(folder: Path, messages: Path, seconds: int) -> int:
    """An hour's commits as messages in a file; their bytes."""
    dice = random.Random(7)
    encoding = [0.0]
    with messages.open("wb") as file:

        def feed(rows: wire.Rows) -> None:
            start = time.perf_counter()
            file.write(wire.message(wire.Kind.ROWS, wire.encoded(rows)))
            encoding[0] += time.perf_counter() - start

        writer = FeedingWriter(folder / "live.unspool", HEADER, feed)
        scene = Scene(writer)
        # The n-th stack is met 1/n as often as the first one.
        weights = list(accumulate(1 / (rank + 1) for rank in range(STACKS)))
        frames: dict[int, int] = {}
        made: dict[int, int] = {}
        process = [writer.process(100 + number, 1, f"program{number}") for number in range(40)]
        thread = [writer.thread(process[number % 40], 1000 + number, f"thread{number}") for number in range(THREADS)]
        unnamed: list[int] = []
        for second in range(seconds):
            for frame in unnamed:
                writer.name(frame, (Symbol(f"namespace::function_{frame}", 4, f"/src/file{frame % 300}.cc", frame % 999 + 1),))
            unnamed.clear()
            for index, rank in enumerate(dice.choices(range(STACKS), cum_weights=weights, k=A_SECOND)):
                if rank not in made:
                    own = random.Random(rank)
                    path = [own.randrange(40) for _ in range(DEPTH // 2)] + [own.randrange(FRAMES) for _ in range(DEPTH // 2)]
                    for place in path:
                        if place not in frames:
                            frames[place] = writer.frame(scene.modules["demo"], 16 * place, 16 * place, "user", Trust.CFI)
                            unnamed.append(frames[place])
                    stop = Stop.NO_UNWIND_INFO if rank % 50 == 0 else Stop.END_PROCESS_ENTRY
                    made[rank] = scene.stack(*(frames[place] for place in reversed(path)), stop=stop)
                moment = MONOTONIC + second * SECOND + index * SECOND // A_SECOND
                # A program has its own stacks.
                number = rank % 40 + 40 * dice.randrange(THREADS // 40)
                writer.sample(moment, process[number % 40], thread[number], index % 2, "cpu", "", 1, made[rank])
            writer.commit()
        writer.finish(seconds * SECOND)
    print(f"recorder: {1000 * encoding[0] / seconds:.2f} ms a second for the page; {len(made):,} distinct stacks, {len(frames):,} frames")
    return messages.stat().st_size


def read(messages: Path) -> None:
    """Take the messages as the page's process does, and print what it costs."""
    ours, _theirs = socket.socketpair()
    source = LiveSource(ours, "live.unspool")
    views = LiveViews(source)
    took: list[float] = []
    waiting = [60 * minute for minute in STOPS]
    print("| minute | samples | a commit taken | " + " | ".join(VIEWS) + " | tree, bytes | memory |")
    print("|---" * (len(VIEWS) + 5) + "|")
    with messages.open("rb") as file:

        def take() -> bool:
            head = file.read(wire.MESSAGE.size)
            if not head:
                return False
            kind, size = wire.opened(head)
            body = file.read(size)
            start = time.perf_counter()
            source.take(kind, body)
            took.append(time.perf_counter() - start)
            return True

        while take():
            if waiting and len(took) >= waiting[0]:
                print(row(views, source, waiting.pop(0) // 60, took[-60:], take))


def row(views: LiveViews, source: LiveSource, minute: int, took: list[float], take: object) -> str:
    """Medians at this moment, each of answers to a picture that is new."""
    assert callable(take)
    cells, size = [], 0
    for name, filters in VIEWS.items():
        times = []
        for _ in range(ASKED):
            take()
            start = time.perf_counter()
            answer = json.dumps(getattr(views, name.partition(",")[0])(Query(filters)), separators=(",", ":"))
            times.append(1000 * (time.perf_counter() - start))
            size = len(answer) if name == "tree" else size
        times.sort()
        cells.append(f"{times[len(times) // 2]:.0f} ms ({times[-1]:.0f})")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    taken = 1000 * sorted(took)[len(took) // 2]
    return (
        f"| {minute} | {source.status()['samples']:,} | {taken:.1f} ms | "
        + " | ".join(cells)
        + f" | {size / 2**20:.1f} MB | {memory:.0f} MB |"
    )


if __name__ == "__main__":
    main()
