"""Runs a program in this process, through the same wrapper that the command line goes through."""

import contextlib
import io
import shlex
from dataclasses import dataclass

from utils.errors import run


@dataclass
class Ran:
    status: int
    out: str
    err: str


def call(main, command: str) -> Ran:
    """main: of a program; command: its arguments as typed. Never raises for what the program reports itself."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(main, shlex.split(command))
        except SystemExit as end:
            return Ran(end.code or 0, out.getvalue(), err.getvalue())
    raise AssertionError("a program always exits")


def refused(ran: Ran, *words: str) -> None:
    """Asserts that a mistake was answered by one sentence with these words and status 2."""
    assert ran.status == 2, (ran.status, ran.out, ran.err)
    lines = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in lines[0], (word, lines[0])
