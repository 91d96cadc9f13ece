"""What stands in the place of the kernel's samples and events in a recording of guests alone."""

from __future__ import annotations

from unspool.capture.sideband import Event


class NoSamples:
    """A source of samples that has none."""

    is_hardware = False

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def drain(self) -> bytes:
        """No records."""
        return b""

    def counters(self) -> dict[str, int]:
        """Nothing was counted."""
        return {}


class NoEvents:
    """A source of events that has none."""

    lost = 0

    def drain(self) -> list[Event]:
        """No events."""
        return []
