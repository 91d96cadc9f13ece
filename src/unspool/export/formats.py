"""The formats by name and by file suffix; each is a module of this package with `chunks(profile, options)`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

from unspool.errors import BadRequest
from unspool.export.options import Options
from unspool.profile.columns import Profile


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its module, the file suffixes that choose it, what it is for, and whether it needs single samples (`Profile.timed`)."""

    module: str
    suffixes: tuple[str, ...]
    says: str
    timed: bool = False

    def chunks(self, profile: Profile, options: Options) -> Iterator[bytes]:
        """The profile in this format."""
        chunks: Iterator[bytes] = importlib.import_module(f"unspool.export.{self.module}").chunks(profile, options)
        return chunks


FORMATS = {
    "folded": Format("folded", (".folded", ".collapsed", ".collapsedstack.txt"), "a line a call path: flamegraph.pl, inferno"),
    "svg": Format("svg", (".svg",), "a still flame graph"),
    "pprof": Format("pprof", (".pb.gz", ".pprof"), "go tool pprof, Pyroscope, Parca"),
    "otlp": Format("otlp", (".otlp", ".otlp.pb"), "OpenTelemetry collectors, Pyroscope, Parca", timed=True),
    "speedscope": Format("speedscope", (".speedscope.json",), "speedscope", timed=True),
    "firefox": Format("firefox", (".json.gz",), "the Firefox Profiler", timed=True),
    "perf-script": Format("perf_script", (".perf", ".linux-perf.txt"), "what reads the text of perf script", timed=True),
    "chrome-trace": Format("chrome_trace", (".trace.json",), "Perfetto, chrome://tracing", timed=True),
    "parquet": Format("parquet", (".parquet",), "data frames: pandas, Polars, DuckDB, Spark", timed=True),
    "html": Format("html", (".html", ".htm"), "a flame graph page with zoom and search, without network"),
}


def format_of(file: str) -> Format:
    """The format that the file's suffix asks for; BadRequest when none does."""
    name = file.lower()
    fitting = [(len(suffix), entry) for entry in FORMATS.values() for suffix in entry.suffixes if name.endswith(suffix)]
    if not fitting:
        raise BadRequest(f"{file!r} has no suffix that names a format", hint=f"Choose one with --format: {', '.join(FORMATS)}.")
    return max(fitting, key=lambda pair: pair[0])[1]
