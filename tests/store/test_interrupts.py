"""Ctrl-C while DuckDB works is Ctrl-C, wherever DuckDB was."""

from __future__ import annotations

import duckdb
import numpy as np
import pytest

from unspool.store.interrupts import QUERY, interrupts


class Interrupted:
    """A value that is read while Ctrl-C comes."""

    def __str__(self) -> str:
        """Never."""
        raise KeyboardInterrupt


def test_while_it_reads_an_array() -> None:
    array = np.array([Interrupted()], dtype=object)
    with duckdb.connect() as connection, pytest.raises(KeyboardInterrupt), interrupts():
        connection.register("batch", {"a": array}).execute("CREATE TABLE t AS SELECT a FROM batch")


@pytest.mark.parametrize("error", [RuntimeError(QUERY), duckdb.InterruptException("Interrupted!")])
def test_while_it_runs_a_query(error: Exception) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts():
        raise error


@pytest.mark.parametrize("error", [RuntimeError("another"), duckdb.Error("KeyboardInterrupt"), duckdb.IOException("no room"), ValueError()])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, interrupts():
        raise error
    assert error is caught.value
