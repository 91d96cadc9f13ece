"""Where .eh_frame is, of programs whose program headers do not say it."""

from __future__ import annotations

import os

import pytest
from target_programs import Programs

from unspool.capture import frame_sections
from unspool.capture.frame_sections import MAX_TRIES, FrameSections, frame_section, section_of
from unspool.formats.elf.file import Elf


class Pupil:
    """A sampler that asks and remembers what it is told."""

    def __init__(self, *questions: tuple[int, int, int]) -> None:
        """Ask these every time."""
        self.questions = list(questions)
        self.told: list[tuple[int, int, int]] = []

    def unread(self) -> list[tuple[int, int, int]]:
        """The questions."""
        return self.questions

    def frame_section(self, key: int, start: int, end: int) -> None:
        """An answer."""
        self.told.append((key, start, end))


def elf(programs: Programs, *flags: str) -> Elf:
    return Elf(programs.build("deep.c", "-O2", *flags).read_bytes())


def test_a_static_programs_section_headers_say_it(programs: Programs) -> None:
    program = elf(programs, "-static", "-no-pie")
    section = program.section(".eh_frame")
    assert section is not None
    assert (section.address, section.address + section.size) == section_of(program, program.entry)


def test_an_address_that_is_not_the_programs_code_is_no_question_about_it(programs: Programs) -> None:
    assert section_of(elf(programs, "-static", "-no-pie"), 0x7F0000000000) is None


@pytest.mark.parametrize("flags", [("-static", "-no-pie", "-Wl,--eh-frame-hdr"), ("-static-pie",), ()])
def test_programs_whose_headers_say_it_are_left_alone(flags: tuple[str, ...], programs: Programs) -> None:
    program = elf(programs, *flags)
    assert section_of(program, program.entry) is None


def test_a_process_that_is_gone_has_no_section() -> None:
    assert frame_section(1 << 30, 0x400000) is None


def test_each_file_is_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_sections, "frame_section", lambda _pid, _address: (0x1000, 0x2000))
    pupil, sections = Pupil((7, os.getpid(), 0)), FrameSections()
    assert [1, 0, 0] == [sections.teach(pupil) for _ in range(3)]
    assert [(7, 0x1000, 0x2000)] == pupil.told


def test_a_file_without_an_answer_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(frame_sections, "frame_section", lambda pid, _address: asked.append(pid))
    sections = FrameSections()
    for _ in range(MAX_TRIES + 5):
        sections.teach(Pupil((7, 1, 0)))
    assert MAX_TRIES == len(asked)
