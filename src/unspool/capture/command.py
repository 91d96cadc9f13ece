"""A command that is started for a recording: it waits before its first instruction until everything is ready to sample it."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
import signal
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unspool.capture.proc import read_file
from unspool.errors import NoSuchTarget, NotPermitted, UnspoolError

NOT_FOUND = 127
NOT_EXECUTABLE = 126
_ERRNO = struct.Struct("<i")


class CommandFailed(UnspoolError):
    """A command that could not be started; `exit_status` is the shell's for that."""

    exit_status = NOT_FOUND


@dataclass(frozen=True, slots=True)
class User:
    """Somebody to run a command as, or to give a file to."""

    uid: int
    gid: int
    name: str
    home: str


def invoking_user() -> User | None:
    """Who called sudo, None when nobody did or we are not root: then all is done as who we are."""
    uid = os.environ.get("SUDO_UID", "")
    if os.geteuid() != 0 or not uid.isdecimal() or int(uid) == 0:
        return None
    try:
        entry = pwd.getpwuid(int(uid))
    except KeyError:
        return None
    return User(entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir)


class Command:
    """A child process that has not run its program yet: `release` lets it. Its standard streams are ours."""

    def __init__(self, arguments: Sequence[str], *, user: User | None = None) -> None:
        """Fork the child, to run as `user` (default: as we are); CommandFailed when there is no such program, or it is none."""
        path = shutil.which(arguments[0])
        if path is None:
            raise _not_found(arguments[0])
        self.arguments = tuple(arguments)
        gate, self._gate = os.pipe2(os.O_CLOEXEC)
        self._failure, failure = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            # Else the child would hold its own gate open, and wait for ever when we are killed.
            os.close(self._gate)
            os.close(self._failure)
            _run(path, self.arguments, user, gate, failure)
        os.close(gate)
        os.close(failure)
        self.pidfd = os.pidfd_open(self.pid)
        self._status: int | None = None

    def release(self) -> None:
        """Let the command run; CommandFailed when the kernel cannot execute it."""
        # It may have ended already: the terminal gives Ctrl-C to it too.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gate, b"g")
        os.close(self._gate)
        self._gate = -1
        answer = os.read(self._failure, _ERRNO.size)
        if len(answer) == _ERRNO.size:
            self.wait()
            raise _not_executable(self.arguments[0], _ERRNO.unpack(answer)[0])

    def poll(self) -> int | None:
        """The exit status as a shell gives it (128 + signal when one ended it), None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = _shell_status(status)
        return self._status

    def wait(self) -> int:
        """The same, after its end."""
        while self._status is None:
            self._status = _shell_status(os.waitpid(self.pid, 0)[1])
        return self._status

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Give up the hold on it; a command that was not released ends without having run."""
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1
            self.wait()
        for descriptor in (self.pidfd, self._failure):
            if descriptor >= 0:
                os.close(descriptor)
        self.pidfd = self._failure = -1


def _not_found(name: str) -> CommandFailed:
    """The error as a shell tells it: a file that may not be executed is there."""
    if "/" not in name or not os.path.lexists(name):
        return CommandFailed(f"there is no command {name!r}", hint="Give its path, or put its directory into PATH.")
    number = errno.EISDIR if Path(name).is_dir() else errno.EACCES
    return _not_executable(name, number)


def _not_executable(name: str, number: int) -> CommandFailed:
    error = CommandFailed(f"{name!r} cannot be executed: {os.strerror(number)}")
    error.exit_status = NOT_EXECUTABLE
    return error


def _shell_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _run(path: str, arguments: Sequence[str], user: User | None, gate: int, failure: int) -> None:
    """In the child: become the user, wait, run the program; never returns.

    What runs between the gate and the program is ours, and is sampled as if it was the command's: it is one system call.
    """
    try:
        # The terminal sends Ctrl-C to this process too: before its program runs it must not print Python's traceback.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        environment = dict(os.environ)
        if user is not None:
            os.initgroups(user.name, user.gid)
            os.setgid(user.gid)
            os.setuid(user.uid)
            environment |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
        words = list(arguments)
        if os.read(gate, 1) == b"g":
            os.execve(path, words, environment)  # noqa: S606 (the user's own command)
    except OSError as error:
        os.write(failure, _ERRNO.pack(error.errno or 0))
    finally:
        os._exit(NOT_FOUND)


def open_process(pid: int) -> int:
    """A descriptor that becomes readable when the process ends; NoSuchTarget when there is none."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise NoSuchTarget(f"there is no process {pid}", hint="`pgrep -a NAME` lists processes by name.") from None
    except PermissionError:
        raise NotPermitted(f"process {pid} may not be watched") from None
    except OSError as error:
        # A thread's id (EINVAL, ENOENT before kernel 6.9) is no process.
        raise NoSuchTarget(f"{pid} is no process: {error.strerror}", hint="-t takes the ids of threads.") from None


def open_thread(tid: int) -> int:
    """The same for a thread; before kernel 6.9, which cannot watch one, for its process."""
    try:
        return os.pidfd_open(tid, os.O_EXCL)  # PIDFD_THREAD, include/uapi/linux/pidfd.h
    except OSError:
        owner = process_of(tid)
    if not owner:
        raise NoSuchTarget(f"there is no thread {tid}", hint="`ls /proc/PID/task` lists a process's threads.")
    return open_process(owner)


def process_of(tid: int) -> int:
    """The process that a thread belongs to, 0 when it is gone."""
    for line in (read_file(f"/proc/{tid}/status") or b"").splitlines():
        if line.startswith(b"Tgid:"):
            return int(line.split()[1])
    return 0
