"""What others wrote is shown letter by letter, and a terminal does not obey it."""

from __future__ import annotations

import errno
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from astrea.common.progress import TerminalReporter
from astrea.common.terminal import PlainConsole, printable

HOSTILE = "a\x1b[31mb\x07\x9b2J\u202ec [red]d[/red] :cat:"
ESCAPED = "a\\x1b[31mb\\x07\\x9b2J\\u202ec [red]d[/red] :cat:"


@given(st.text(st.characters()))
def test_what_is_escaped_is_printable_and_as_repr_has_it(text: str):
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()
    plain = text.replace("\\", "").replace("'", "")  # repr escapes these too
    assert printable(plain) == repr(plain)[1:-1]
    assert printable(text, keep="\n").count("\n") == text.count("\n")


def shown(*printed: object, terminal: bool = False, **options: object) -> str:
    file = io.StringIO()
    colours = "standard" if terminal else None
    console = PlainConsole(file=file, width=120, force_terminal=terminal, color_system=colours)
    console.print(*printed, **options)
    return file.getvalue()


def test_strings_are_neither_obeyed_nor_read_as_markup():
    assert shown(HOSTILE) == f"{ESCAPED}\n"
    assert shown(HOSTILE, markup=True, emoji=True) == f"{ESCAPED}\n"
    assert shown("one\ntwo\rthree") == "one\ntwo\\rthree\n"
    assert shown("\ud800half") == "\\ud800half\n"


def test_tables_and_styled_texts_are_escaped_too():
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text("x\x1by"))
    out = shown(table)
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert out.count("[red]d[/red] :cat:") == 3
    assert "x\\x1by" in out
    assert shown(Text("x\x1b\x9by", style="red")) == "x\\x1b\\x9by\n"


class Device(io.StringIO):
    """A device that is full for a while."""

    full = True

    def flush(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device")


def test_what_could_not_be_written_is_not_written_later():
    device = Device()
    console = PlainConsole(file=device, width=120)
    for _ in range(2):
        with pytest.raises(OSError, match="no space left"):
            console.print("lost")
    device.full = False
    device.truncate(device.seek(0))
    console.print("next")
    assert device.getvalue() == "next\n"


def test_its_own_colours_remain():
    assert shown(Text("x\x1by", style="red"), terminal=True) == "\x1b[31mx\\x1by\x1b[0m\n"


def test_what_is_reported_is_escaped(capsys: pytest.CaptureFixture[str]):
    with TerminalReporter() as report:
        report.track(HOSTILE, 1, 1, "\x1b[b]")
        report.say(HOSTILE)
    assert capsys.readouterr().err.splitlines() == [f"{ESCAPED}: done, \\x1b[b]", ESCAPED]


def test_progress_bars_are_escaped():
    report = TerminalReporter()
    report.console = report.progress.live.console = PlainConsole(file=io.StringIO(), width=200, force_terminal=True)
    report.track(HOSTILE, 1, 2, HOSTILE)
    out = io.StringIO()
    PlainConsole(file=out, width=200).print(report.progress.get_renderable())
    assert out.getvalue().count(ESCAPED) == 2
