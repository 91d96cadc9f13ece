"""The sampler of one guest, against a source of registers and a decoder that do what the test says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from unspool.capture.guest_budget import Budget, Limits
from unspool.capture.guest_channel import TimedOut
from unspool.capture.guest_process import Decoder, DecoderDied
from unspool.capture.guest_sampler import MAX_DEATHS, GuestSampler, Settings
from unspool.capture.guest_wire import GuestFrame, GuestModule, GuestStack, GuestTask, KernelFound, stack_to_wire
from unspool.model.arch import X86_64
from unspool.model.registers import Registers
from unspool.model.verdict import Judgement, Stop, Trust, Verdict
from unspool.targets.guest.registers import RefusalKind, Refused, VcpuState

STATE = VcpuState(Registers(X86_64, 1 << 63, {}), 1, 0, 0, 0, 16, 0, 0, 0, 0, None, halted=False, snapshot=True)
STACK = GuestStack(
    task=GuestTask(7, 7, "dd", 5, "dd"),
    frames=(GuestFrame(2**64 - 4096, Trust.REGISTERS, exact=True, module=0, offset=16),),
    kernel_frames=1,
    stop=Stop.END_KERNEL_ENTRY,
    judgement=Judgement(Verdict.RELIABLE),
    detail="",
    modules={0: GuestModule("[guest.kernel]", "ab", "kernel")},
)
FOUND = {"release": "6.1.0", "version": "Linux", "build_id": "ab", "base": 4096, "symbols": 2, "missing": ""}
LOST = {"failed": "rebooted", "lost": True}


class _Source:
    """Gives these states in turn, the last one for ever; `held` is how many vCPUs are held now, `most` how many were at once."""

    snapshot = True

    def __init__(self, *states: VcpuState | Refused, name: str = "gdbstub", vcpus: tuple[int, ...] = (0,)) -> None:
        self.states = list(states)
        self.name = name
        self.vcpus = vcpus
        self.held = self.most = 0

    @contextmanager
    def hold(self, _: int) -> Iterator[VcpuState | Refused]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        self.held += 1
        self.most = max(self.most, self.held)
        try:
            yield state
        finally:
            self.held -= 1

    def close(self) -> None:
        pass


class _Decoder(Decoder):
    """Answers from a list by operation, the last one for ever; an exception in it is raised, `late` once before its answer."""

    def __init__(self, source: _Source, **answers: Sequence[Any]) -> None:
        self._pid = 0
        self.source = source
        self.answers = {name: list(items) for name, items in answers.items()}
        self.closed = False
        self.waits: list[object] = []
        self.asked: list[str] = []
        self.held_while_asked: list[str] = []

    def begin(self, request: dict[str, object]) -> None:
        operation = str(request["op"])
        self.asked.append(operation)
        if self.source.held and operation != "sample":
            self.held_while_asked.append(operation)
        default: dict[str, list[object]] = {
            "discover": [FOUND],
            "sample": [stack_to_wire(STACK)],
            "names": [{"names": [["do_thing", 4]]}],
        }
        known = self.answers.setdefault(operation, default.get(operation, [{}]))
        answer = known.pop(0) if len(known) > 1 else known[0]
        self.waits = list(answer) if isinstance(answer, tuple) else [answer]

    def wait(self, seconds: float) -> object:
        del seconds
        answer = self.waits.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, request: dict[str, object], seconds: float) -> object:
        self.begin(request)
        return self.wait(seconds)

    def condemn(self, reason: str) -> DecoderDied:
        return DecoderDied(reason)

    def close(self) -> None:
        self.closed = True


class _Seen:
    """An outlet that keeps what it is told."""

    def __init__(self) -> None:
        self.kernels: list[int] = []
        self.samples: list[tuple[int, GuestStack]] = []
        self.named: list[tuple[int, str, int]] = []
        self.files: list[tuple[int, bytes, bool]] = []
        self.counters: dict[str, int] = {}

    def kernel(self, generation: int, found: KernelFound) -> None:
        assert found.release == "6.1.0"
        self.kernels.append(generation)

    def sample(self, time_ns: int, vcpu: int, stack: GuestStack) -> None:
        assert time_ns
        self.samples.append((vcpu, stack))

    def names(self, names: list[tuple[int, str, int]]) -> None:
        self.named += names

    def file(self, module: int, descriptor: int, *, whole: bool) -> None:
        self.files.append((module, os.pread(descriptor, 10_000, 0), whole))
        os.close(descriptor)

    def count(self, counters: dict[str, int], budget: Budget) -> None:
        assert budget.rate
        self.counters = counters


def sampled(source: _Source, decoder: _Decoder, rounds: int = 1, **limits: float) -> tuple[GuestSampler, _Seen]:
    """A sampler that has made so many rounds, each as if its time had come."""
    seen = _Seen()
    sampler = GuestSampler(source, lambda: decoder, seen, Settings(1e6, Limits(**limits) if limits else Limits()))
    sampler.prepare()
    sampler._retry_at = 0.0
    left = [rounds]

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        sampler._retry_at = 0.0
        left[0] -= 1
        return left[0] <= 0

    sampler.ended = sampler.run(wait)
    sampler.close()
    return sampler, seen


def test_a_sample_has_its_vcpu_and_its_names() -> None:
    source = _Source(STATE)
    decoder = _Decoder(source)
    _, seen = sampled(source, decoder)
    assert [1] == seen.kernels
    assert (0, STACK) == seen.samples[0]
    assert [(2**64 - 4096, "do_thing", 4)] == seen.named
    assert seen.counters["guest-samples"] == len(seen.samples)
    # Whatever takes long happens while the guest runs.
    assert [] == decoder.held_while_asked
    assert decoder.closed


@pytest.mark.parametrize(("name", "at_once"), [("gdbstub", 2), ("kvm-hold", 1)])
def test_one_stop_serves_all_vcpus_where_it_stops_them_all(name: str, at_once: int) -> None:
    source = _Source(STATE, name=name, vcpus=(0, 1))
    _, seen = sampled(source, _Decoder(source))
    assert at_once == source.most
    assert {0, 1} == {vcpu for vcpu, _ in seen.samples}


def test_idle_vcpus_are_counted() -> None:
    source = _Source(STATE, Refused("idle", RefusalKind.HALTED))
    _, seen = sampled(source, _Decoder(source))
    assert [] == seen.samples
    assert seen.counters["guest-idle"] >= 1


def test_a_stack_that_comes_too_late_is_not_reliable() -> None:
    """The vCPU was let go before it came: what was read is not of one moment."""
    source = _Source(STATE)
    decoder = _Decoder(source, sample=[(TimedOut(), stack_to_wire(STACK))])
    _, seen = sampled(source, decoder)
    judgement = seen.samples[0][1].judgement
    assert (Verdict.UNRELIABLE, Stop.GUEST_RUNNING, 0) == (judgement.verdict, judgement.reason, judgement.first_bad_frame)
    assert seen.counters["guest-late"] == len(seen.samples)


def test_a_reboot_is_another_generation() -> None:
    """The module numbers of the old one mean nothing any more."""
    source = _Source(STATE)
    first = stack_to_wire(STACK)
    other = stack_to_wire(replace(STACK, modules={0: GuestModule("[guest.kernel]", "cd", "kernel")}))
    decoder = _Decoder(source, sample=[first, LOST, other])
    _, seen = sampled(source, decoder, rounds=8)
    assert [1, 2] == seen.kernels
    assert {"ab", "cd"} == {module.build_id for _, stack in seen.samples for module in stack.modules.values()}


def test_a_kernel_that_is_found_again_is_the_same_generation() -> None:
    """A moment at which nothing led to it is no reboot."""
    source = _Source(STATE)
    decoder = _Decoder(source, discover=[FOUND, FOUND | {"same_boot": True}], sample=[stack_to_wire(STACK), LOST, stack_to_wire(STACK)])
    _, seen = sampled(source, decoder, rounds=8)
    assert [1, 1] == seen.kernels


def test_a_guest_without_a_kernel_is_looked_at_again() -> None:
    source = _Source(STATE)
    decoder = _Decoder(source, discover=[{"failed": "not in long mode"}, FOUND])
    _, seen = sampled(source, decoder, rounds=4)
    assert [1] == seen.kernels
    assert seen.counters["guest-no-kernel"] == 1


def test_a_decoder_that_dies_is_started_again_in_the_same_generation() -> None:
    source = _Source(STATE)
    decoder = _Decoder(source, sample=[DecoderDied("crash"), stack_to_wire(STACK)])
    sampler, seen = sampled(source, decoder, rounds=6)
    assert [1, 1] == seen.kernels
    assert seen.samples
    assert seen.counters["lost-guest-parser-died"] == 1
    assert sampler.ended == ""


@pytest.mark.parametrize(
    "answer",
    [DecoderDied("crash"), "nonsense", {"frames": 3}, stack_to_wire(replace(STACK, modules={})), (TimedOut(), TimedOut())],
)
def test_a_decoder_that_never_works_ends_its_guest(answer: object) -> None:
    """A frame in a module that was never told is nonsense, too."""
    source = _Source(STATE)
    sampler, seen = sampled(source, _Decoder(source, sample=[answer]), rounds=1000)
    assert seen.counters["lost-guest-parser-died"] == MAX_DEATHS
    assert "its decoder died" in sampler.ended


def test_a_machine_that_is_gone_ends() -> None:
    source = _Source(STATE, STATE, Refused("the machine ended", RefusalKind.GONE))
    sampler, _ = sampled(source, _Decoder(source), rounds=1000)
    assert "the machine ended" == sampler.ended


def test_files_are_fetched_between_samples() -> None:
    """Pages that the guest has not stay zero, and the file is not whole."""
    source = _Source(STATE)
    modules = {0: GuestModule("[guest.kernel]", "ab", "kernel"), 1: GuestModule("/bin/a", "", "file", 5000)}
    piece = bytes((1, 0)) + b"x" * 4096 + bytes(904)
    decoder = _Decoder(source, sample=[stack_to_wire(replace(STACK, modules=modules)), stack_to_wire(STACK)], file=[piece])
    _, seen = sampled(source, decoder)
    assert [(1, b"x" * 4096 + bytes(904), False)] == seen.files


def test_no_round_costs_more_than_the_budget_allows() -> None:
    """What was used up is waited for: a share of a tenth, held for 0.1 s, is a second without samples."""
    budget = Budget(1000, Limits(share=0.1))
    budget.held(0.1)
    assert 1.0 <= budget.period() < 1.01
    for _ in range(1000):
        budget.held(0.00001)
        assert budget.period() < 0.01
