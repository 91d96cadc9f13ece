"""`unspool push` against a real HTTP server that fails, waits, refuses and takes: the numbers add up, and nothing secret is printed."""

from __future__ import annotations

import socket
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from collectors import TAKEN, FakeCollector, Reply, collector, counted, rejecting
from export.test_otlp import attributes, check_rules
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service
from store.recordings import HEADER, big, guests, small

from unspool.cli.main import main
from unspool.errors import NotPermitted
from unspool.session import otlp_sender, push
from unspool.store.writer import Writer

SECRET = "Bearer s3cr3t-t0ken"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return small(tmp_path / "a.unspool")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_sender, "FIRST_PAUSE", 0.01)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_HEADERS", raising=False)


def pushed(target: FakeCollector | str, file: Path, *options: str) -> int:
    url = target if isinstance(target, str) else target.url
    return main(["push", "--otlp", url, str(file), *options])


def test_a_recording_arrives_whole(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with collector() as there:
        assert 0 == pushed(there, recording)
    [message] = there.taken
    check_rules(message)
    assert 10 == there.samples
    assert "/v1development/profiles" == there.seen[0][0]
    assert "10 of 10 samples arrived (1 requests, " in capsys.readouterr().err


def test_what_arrives_is_what_export_writes(recording: Path, tmp_path: Path) -> None:
    assert 0 == main(["export", str(recording), "-o", str(tmp_path / "a.otlp")])
    with collector() as there:
        pushed(there, recording)
    exported = service.ExportProfilesServiceRequest.FromString((tmp_path / "a.otlp").read_bytes())
    assert counted([exported]) == counted(there.taken)


def test_samples_of_guests_arrive_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when they are cut into messages."""
    monkeypatch.setattr(push, "MOST_SAMPLES", 5)
    file = guests(tmp_path / "guests.unspool")
    assert 0 == main(["export", str(file), "-o", str(tmp_path / "a.otlp")])
    with collector() as there:
        assert 0 == pushed(there, file)
    exported = service.ExportProfilesServiceRequest.FromString((tmp_path / "a.otlp").read_bytes())
    assert len(there.taken) > 1
    assert labelled([exported]) == labelled(there.taken)
    assert {"web", "db"} <= {dict(labels).get("unspool.guest") for labels in labelled(there.taken)}


def labelled(messages: list[Any]) -> Counter[tuple[tuple[str, object], ...]]:
    """How many samples have which attributes."""
    found: Counter[tuple[tuple[str, object], ...]] = Counter()
    for message in messages:
        for sample in message.resource_profiles[0].scope_profiles[0].profiles[0].samples:
            found[tuple(sorted(attributes(message.dictionary, sample.attribute_indices).items()))] += len(sample.values)
    return found


def test_many_messages_hold_every_sample_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "MOST_SAMPLES", 300)
    file = big(tmp_path / "big.unspool", samples=1000, stacks=50)
    with collector() as whole:
        pushed(whole, file)
    monkeypatch.setattr(push, "MOST_SAMPLES", 10**6)
    with collector() as once:
        pushed(once, file)
    assert (4, 1, 1000) == (len(whole.taken), len(once.taken), whole.samples)
    assert counted(once.taken) == counted(whole.taken)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_collector_is_asked_again(recording: Path, capsys: pytest.CaptureFixture[str], status: int) -> None:
    with collector(lambda number, _: TAKEN if number == 2 else Reply(status, {"Retry-After": "0"})) as there:
        assert 0 == pushed(there, recording)
    assert (3, 10) == (len(there.seen), there.samples)
    said = capsys.readouterr().err
    assert f"it answers {status}" in said
    assert "10 of 10 samples arrived (3 requests, 2 of them sent again" in said


def test_a_connection_that_breaks_is_made_again(recording: Path) -> None:
    with collector(lambda number, _: TAKEN if number == 2 else Reply(cut=True)) as there:
        assert 0 == pushed(there, recording)
    assert (3, 10) == (len(there.seen), there.samples)


def test_partial_success_is_no_success(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with collector(lambda _n, _m: rejecting(1, "too old")) as there:
        assert 1 == pushed(there, recording)
    assert 1 == len(there.seen), "what was rejected is not sent again"
    said = capsys.readouterr().err
    assert "0 of 10 samples arrived" in said
    assert "10 did not arrive: it took the request and rejected the profile: too old" in said


def test_a_remark_of_the_collector_is_passed_on(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with collector(lambda _n, _m: rejecting(0, "use the stable path\x1b[31m")) as there:
        assert 0 == pushed(there, recording)
    assert "  it says: use the stable path\\x1b[31m (1 times)" in capsys.readouterr().err


def test_only_a_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(push, "MOST_SAMPLES", 300)
    file = big(tmp_path / "big.unspool", samples=1000, stacks=50)
    with collector(lambda number, _: Reply(400, kind="text/plain", body=b"bad profile") if number == 1 else TAKEN) as there:
        assert 1 == pushed(there, file)
    assert 700 == there.samples
    said = capsys.readouterr().err
    assert "700 of 1,000 samples arrived (4 requests" in said
    assert "300 did not arrive: it answers 400 Bad Request: bad profile" in said


@pytest.mark.parametrize("reply", [Reply(413), Reply(400, kind="text/plain", body=b"http: request body too large")], ids=["413", "400"])
def test_too_large_messages_are_cut(tmp_path: Path, reply: Reply) -> None:
    """A proxy says 413; the OpenTelemetry Collector says 400 and the words."""
    file = big(tmp_path / "big.unspool", samples=1000, stacks=50)
    with collector(lambda _, message: reply if message.ByteSize() > 20_000 else TAKEN) as there:
        assert 0 == pushed(there, file)
    assert 1000 == there.samples
    assert len(there.taken) > 1


@pytest.mark.parametrize(("status", "words"), [(401, "Unauthorized"), (404, "Not Found"), (405, "Method Not Allowed")])
def test_what_will_never_work_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: int, words: str
) -> None:
    monkeypatch.setattr(push, "MOST_SAMPLES", 300)
    file = big(tmp_path / "big.unspool", samples=1000, stacks=50)
    with collector(lambda _n, _m: Reply(status)) as there:
        assert 1 == pushed(there, file)
    assert 1 == len(there.seen)
    assert f"1,000 did not arrive: it answers {status} {words}" in capsys.readouterr().err


def test_redirects_are_not_followed(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with collector() as elsewhere, collector(lambda _n, _m: Reply(307, {"Location": elsewhere.url})) as there:
        assert 1 == pushed(there, recording, "--header", f"Authorization: {SECRET}")
    assert ([], 1) == (elsewhere.seen, len(there.seen))
    assert "redirects are not followed" in capsys.readouterr().err


def test_a_web_server_is_no_collector(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with collector(lambda _n, _m: Reply(200, kind="text/html", body=b"<h1>Welcome</h1>")) as there:
        assert 1 == pushed(there, recording)
    assert "0 of 10 samples arrived" in capsys.readouterr().err


def test_no_collector_is_told(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert 1 == pushed(f"http://127.0.0.1:{port}", recording, "--retry", "50ms")
    said = capsys.readouterr().err
    assert "10 did not arrive: connection refused" in said


def test_a_silent_collector_is_left(recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unspool.session.otlp_http.TIMEOUT", 0.2)
    with collector(lambda _n, _m: Reply(hang=True)) as there:
        assert 1 == pushed(there, recording, "--retry", "50ms")
    assert "10 did not arrive: no answer within 0.2 s" in capsys.readouterr().err


def test_headers_go_with_every_request(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "X-Scope-OrgID=team%20a, Authorization=Basic%20eA==")
    with collector() as there:
        assert 0 == pushed(there, recording, "--header", f"Authorization: {SECRET}")
    headers = there.seen[0][1]
    assert ("team a", SECRET) == (headers["X-Scope-OrgID"], headers["Authorization"])


def test_secrets_are_never_printed(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even when the server repeats them."""
    echo = Reply(401, kind="text/plain", body=f"no such token {SECRET.split()[1]}".encode())
    with collector(lambda _n, _m: echo) as there:
        assert 1 == pushed(f"{there.url}/otlp?key=s3cr3t-k3y", recording, "--header", f"Authorization: {SECRET}")
        assert 1 == main(["push", "--otlp", "http://me:s3cr3t-pw@127.0.0.1", str(recording)])
        assert 1 == main(["push", "--otlp", there.url, str(recording), "--header", "Authorization: s3cr3t\n"])
        assert 1 == main(["push", "--otlp", there.url, str(recording), "--header", "s3cr3t"])
    assert "/otlp/v1development/profiles?key=s3cr3t-k3y" == there.seen[0][0]
    printed = capsys.readouterr()
    assert "no such token ***" in printed.err
    assert "s3cr3t" not in printed.out + printed.err


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody trusts yet, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=test",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


def test_certificates_are_verified(recording: Path, certificate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with collector(certificate=certificate) as there:
        assert 1 == pushed(there, recording)
        assert [] == there.seen
        assert "its certificate cannot be trusted: self-signed certificate" in capsys.readouterr().err
        assert 0 == pushed(there, recording, "--ca", str(certificate))
    assert 10 == there.samples


def test_an_empty_recording_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Writer(tmp_path / "empty.unspool", HEADER).finish(5)
    with collector() as there:
        assert 0 == pushed(there, tmp_path / "empty.unspool")
    assert [] == there.seen
    assert "0 of 0 samples arrived" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["localhost:4318", "ftp://x", "http://", "http://[::1", "http://h:99999", "grpc://h:4317"])
def test_an_address_that_is_none(url: str, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["push", "--otlp", url, str(recording)])
    assert "--otlp takes an address" in capsys.readouterr().err


def test_a_file_that_is_no_recording_says_only_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.unspool").write_bytes(b"nothing")
    with collector() as there:
        assert 1 == pushed(there, tmp_path / "a.unspool")
    said = capsys.readouterr().err
    assert "is not a recording" in said
    assert "arrived" not in said


def test_there_is_one_thing_to_send(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["push", "--otlp", "http://localhost:4318"])
    assert 1 == main(["push", "--otlp", "http://localhost:4318", "-a", str(recording)])
    assert 2 == capsys.readouterr().err.count("push takes either a recording, or -a, -p or --guest")


def test_what_could_not_begin_is_not_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*_: object) -> None:
        raise NotPermitted("the kernel does not permit it")

    monkeypatch.setattr("unspool.session.push_live.push_live", refused)
    assert 1 == main(["push", "--otlp", "http://localhost:4318", "-a", "-d", "1"])
    said = capsys.readouterr().err
    assert "does not permit" in said
    assert "arrived" not in said
