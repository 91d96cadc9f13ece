"""The sampler of one guest: holds its vCPUs in turn, has their stacks decoded by a process without privileges, and passes them on.

It runs in a process of its own, so that a vCPU never waits for what else a recorder does.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from unspool.capture.guest_budget import Budget, Limits
from unspool.capture.guest_channel import TimedOut
from unspool.capture.guest_files import FileQueue
from unspool.capture.guest_idle import any_state
from unspool.capture.guest_priority import at_once
from unspool.capture.guest_process import Decoder, DecoderDied
from unspool.capture.guest_wire import (
    MAX_NAMES,
    BadAnswer,
    Failed,
    GuestModule,
    GuestStack,
    KernelFound,
    checked_kernel,
    checked_names,
    checked_stack,
    state_to_wire,
)
from unspool.targets.guest.registers import RefusalKind, Refused, VcpuSource, VcpuState

DISCOVER_SECONDS = 60.0
"""How long the search for a kernel may take: half a second on a quiet machine."""
REQUEST_SECONDS = 20.0
RETRY_SECONDS = 0.25
"""How long to wait before a kernel that was not found is looked for again."""
REFRESH_SECONDS = 1.0
"""How often the list of the guest's kernel modules is read again."""
MAX_DEATHS = 5
"""How often a decoder is started again."""
MAX_NAMED = 1_000_000
STOPS_ALL = frozenset({"gdbstub", "qmp-stop"})
"""Back ends that stop every vCPU at once: one stop serves a whole round."""


class Outlet(Protocol):
    """Where the sampler's findings go: `guest_events.EventSender`, or a fake."""

    def kernel(self, generation: int, found: KernelFound) -> None:
        """A kernel was found; a generation counts the boots."""

    def sample(self, time_ns: int, vcpu: int, stack: GuestStack) -> None:
        """A stack of the generation told last."""

    def names(self, names: list[tuple[int, str, int]]) -> None:
        """Functions by the address that was looked up, with the offset in them; of the generation told last."""

    def file(self, module: int, descriptor: int, *, whole: bool) -> None:
        """The bytes of a module of the generation told last, in a file without a name."""

    def count(self, counters: dict[str, int], budget: Budget) -> None:
        """The totals until now."""


@dataclass(slots=True)
class Settings:
    """How to sample: `frequency` samples a second and vCPU, within `limits`."""

    frequency: float = 99
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class _Taken:
    """An answer for one vCPU; `late`: the vCPU had to be let go before it came."""

    time_ns: int
    vcpu: int
    answer: object
    late: bool


class GuestSampler:
    """Samples one guest until `run` is told to stop, or the guest ends."""

    def __init__(self, source: VcpuSource, start_decoder: Callable[[], Decoder], outlet: Outlet, settings: Settings) -> None:
        """Sample through `source`; `start_decoder` forks a decoder of the guest's memory."""
        self.source = source
        self.outlet = outlet
        self.budget = Budget(settings.frequency, settings.limits)
        self.counters: Counter[str] = Counter()
        self.generation = 0
        self.ended = ""
        self._limits = settings.limits
        self._start_decoder = start_decoder
        self._decoder: Decoder | None = None
        self._kernel: KernelFound | None = None
        self._modules: dict[int, GuestModule] = {}
        self._named: set[int] = set()
        self._unnamed: set[int] = set()
        self._files = FileQueue()
        self._retry_at = 0.0
        self._refresh_at = 0.0
        self._turn = 0
        self._running = False

    def prepare(self) -> None:
        """Look for the kernel once, so that `run` can begin with samples; a guest without one is looked at again there."""
        with contextlib.suppress(DecoderDied, BadAnswer):
            self._discover()

    def run(self, wait: Callable[[float], bool]) -> str:
        """Sample until `wait(seconds)` says True (stop) or the guest ends; the reason in words, "" when it was told to stop."""
        self._running = True
        if self._kernel is not None:
            self.outlet.kernel(self.generation, self._kernel)
        due = time.monotonic()
        counted = due
        while not self.ended:
            now = time.monotonic()
            if now >= due:
                self._round(now)
                # A round that was missed is not made up for: that would be a burst.
                due = max(due + self.budget.period(), time.monotonic())
            if now - counted > 1:
                counted = now
                self.outlet.count(dict(self.counters), self.budget)
            if self._works_ahead(due):
                continue
            if wait(max(0.0, due - time.monotonic())):
                break
        self._finish()
        return self.ended

    def close(self) -> None:
        """End the decoder."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        self._files.close()

    def _round(self, now: float) -> None:
        try:
            if self._kernel is None:
                if now >= self._retry_at:
                    self._discover()
                return
            for taken in self._take():
                self._pass_on(taken)
        except (DecoderDied, BadAnswer) as error:
            self._decoder_died(str(error))

    def _take(self) -> list[_Taken]:
        """One sample of each vCPU that is not idle."""
        vcpus = self.source.vcpus
        self._turn = (self._turn + 1) % max(1, len(vcpus))
        order = vcpus[self._turn :] + vcpus[: self._turn]
        if self.source.name in STOPS_ALL:
            taken, held = self._take_held(order)
            self.budget.held(held)
            return taken
        total, found = 0.0, []
        for vcpu in order:
            taken, held = self._take_held((vcpu,))
            found += taken
            total += held
        self.budget.held(total / len(order) if order else 0.0)
        return found

    def _take_held(self, vcpus: tuple[int, ...]) -> tuple[list[_Taken], float]:
        """Samples of these vCPUs in one hold, and how long it lasted."""
        decoder = self._running_decoder()
        found: list[_Taken] = []
        late: tuple[int, int] | None = None
        begun = ended = 0.0
        # Without a snapshot nothing stands still, and nothing bounds the wait.
        urgent = at_once(0, decoder.pid) if self.source.snapshot else contextlib.nullcontext()
        with urgent, contextlib.ExitStack() as holds:
            # Called last, when everything was let go.
            for vcpu in vcpus:
                state = holds.enter_context(self.source.hold(vcpu))
                if isinstance(state, Refused):
                    self._refused(state)
                    continue
                # From here on it stands still for us; before, it may have waited for its turn on a CPU.
                begun = begun or time.monotonic()
                time_ns = time.monotonic_ns()
                try:
                    decoder.begin({"op": "sample", "state": state_to_wire(state), "vcpu": vcpu})
                    left = begun + self._limits.longest - time.monotonic() if state.snapshot else REQUEST_SECONDS
                    found.append(_Taken(time_ns, vcpu, decoder.wait(left), late=False))
                except TimedOut:
                    late = (time_ns, vcpu)
                    break
        if begun:
            ended = time.monotonic()
        if late is not None:
            # The vCPU runs again; what the decoder read until now is not of one moment.
            found.append(_Taken(*late, self._late_answer(decoder), late=True))
        return found, ended - begun if self.source.snapshot else 0.0

    @staticmethod
    def _late_answer(decoder: Decoder) -> object:
        try:
            return decoder.wait(REQUEST_SECONDS)
        except TimedOut as error:
            raise decoder.condemn("it took too long") from error

    def _pass_on(self, taken: _Taken) -> None:
        stack = checked_stack(taken.answer)
        if isinstance(stack, Failed):
            if stack.lost:
                self._lose_kernel()
            self.counters["guest-not-decoded"] += 1
            return
        self._modules.update(stack.modules)
        for number, module in stack.modules.items():
            self._files.want(number, module)
        if any(frame.module is not None and frame.module not in self._modules for frame in stack.frames):
            raise BadAnswer("a frame in a module that was never told")
        if taken.late:
            stack = racy(stack)
            self.counters["guest-late"] += 1
        self.counters["guest-samples"] += 1
        self._note_unnamed(stack)
        self.outlet.sample(taken.time_ns, taken.vcpu, stack)

    def _note_unnamed(self, stack: GuestStack) -> None:
        for frame in stack.frames[: stack.kernel_frames]:
            address = frame.ip - frame.back
            if address not in self._named and len(self._named) < MAX_NAMED:
                self._named.add(address)
                self._unnamed.add(address)

    def _refused(self, refused: Refused) -> None:
        if refused.kind is RefusalKind.HALTED:
            self.counters["guest-idle"] += 1
        elif refused.kind is RefusalKind.GONE:
            self.ended = refused.reason
        elif refused.kind is RefusalKind.IMPOSSIBLE:
            self.counters["lost-guest-vcpu"] += 1
        else:
            self.counters["lost-guest-busy"] += 1

    def _discover(self) -> None:
        """Look for the kernel by the registers of the first vCPU that has some; the guest runs on meanwhile."""
        decoder = self._running_decoder()
        state = any_state(self.source)
        if not isinstance(state, VcpuState):
            self.ended = state or ""
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return
        found = checked_kernel(decoder.ask({"op": "discover", "state": state_to_wire(state)}, DISCOVER_SECONDS))
        if isinstance(found, Failed):
            self.counters["guest-no-kernel"] += 1
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return
        self._kernel = found
        self.generation += not found.same_boot
        if self._running:
            self.outlet.kernel(self.generation, found)
        # What is done for the first time takes long: not while the guest is held. The answer is of no moment, and is thrown away.
        decoder.ask({"op": "warm", "state": state_to_wire(state)}, REQUEST_SECONDS)

    def _lose_kernel(self) -> None:
        """The guest was rebooted: nothing that was learned holds any more."""
        self._kernel = None
        self._modules.clear()
        self._named.clear()
        self._unnamed.clear()
        self._files.close()
        self._files = FileQueue()
        self._retry_at = time.monotonic() + RETRY_SECONDS

    def _decoder_died(self, reason: str) -> None:
        """Count it as stacks whose parser died; the kernel has to be found again by another decoder, but it is the same boot."""
        self.counters["lost-guest-parser-died"] += 1
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        if self.counters["lost-guest-parser-died"] >= MAX_DEATHS:
            self.ended = f"its decoder died {MAX_DEATHS} times: {reason}"
            return
        if self._kernel is not None:
            # What numbers mean is told anew, and so is the generation's kernel.
            self.generation -= 1
            self._lose_kernel()

    def _running_decoder(self) -> Decoder:
        if self._decoder is None:
            self._decoder = self._start_decoder()
        return self._decoder

    def _works_ahead(self, due: float) -> bool:
        """Do a piece of what is not urgent, when there is time before the next sample; whether there was any."""
        if self._kernel is None or time.monotonic() >= due:
            return False
        try:
            return self._refresh() or self._name_some() or self._fetch_some()
        except (DecoderDied, BadAnswer) as error:
            self._decoder_died(str(error))
            return False

    def _refresh(self) -> bool:
        """Have the list of kernel modules read again."""
        if time.monotonic() < self._refresh_at:
            return False
        self._refresh_at = time.monotonic() + REFRESH_SECONDS
        self._running_decoder().ask({"op": "refresh"}, REQUEST_SECONDS)
        return True

    def _name_some(self) -> bool:
        if not self._unnamed:
            return False
        addresses = [self._unnamed.pop() for _ in range(min(len(self._unnamed), MAX_NAMES))]
        names = checked_names(self._running_decoder().ask({"op": "names", "addresses": addresses}, REQUEST_SECONDS), len(addresses))
        self.outlet.names([(address, *name) for address, name in zip(addresses, names, strict=True) if name is not None])
        return True

    def _fetch_some(self) -> bool:
        request = self._files.request()
        if request is None:
            return False
        answer = self._running_decoder().ask(request, REQUEST_SECONDS)
        if not (answer is None or isinstance(answer, bytes)):
            raise BadAnswer("a file's bytes that are none")
        done = self._files.take(answer)
        if done is not None:
            module, descriptor, whole = done
            self.outlet.file(module, descriptor, whole=whole)
        return True

    def _finish(self) -> None:
        """What is still to be learned of the frames that were sampled, while the guest is there."""
        deadline = time.monotonic() + REQUEST_SECONDS
        while self._works_ahead(deadline):
            pass
        self.outlet.count(dict(self.counters), self.budget)


def racy(stack: GuestStack) -> GuestStack:
    """The same stack with the verdict of one whose guest ran on while it was read."""
    from dataclasses import replace

    from unspool.model.verdict import Judgement, Stop, Verdict

    return replace(
        stack, judgement=Judgement(Verdict.UNRELIABLE, Stop.GUEST_RUNNING, 0, "the vCPU had to be let go before its stack was read")
    )
