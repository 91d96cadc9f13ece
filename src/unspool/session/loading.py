"""The sampler loaded beside other work: the kernel verifies its programs for 0.1 s and more, and needs nothing of ours for it."""

from __future__ import annotations

import threading

from unspool.capture.kernel import Sampler
from unspool.capture.request import Request


class Loading:
    """A sampler that a thread is loading. The thread has ended when `sampler` gives it, so that a fork after that is harmless."""

    def __init__(self, request: Request) -> None:
        """Begin."""
        self._request = request
        self._sampler: Sampler | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._load, name="unspool-load", daemon=True)
        self._thread.start()

    def sampler(self) -> Sampler:
        """The sampler when it is loaded; NotPermitted or Unsupported."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._sampler is not None, "the thread ends with one of them"
        return self._sampler

    def close(self) -> None:
        """Unload what was loaded."""
        self._thread.join()
        if self._sampler is not None:
            self._sampler.close()

    def _load(self) -> None:
        try:
            self._sampler = Sampler(self._request)
        except BaseException as error:  # noqa: BLE001 (it is raised again by who asks)
            self._error = error
