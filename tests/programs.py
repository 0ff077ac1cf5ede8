"""Which programs there are, and how tests run one in this process, through the wrapper that the command line goes through."""

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from utils.errors import UserError, run

ROOT = Path(__file__).resolve().parent.parent


def find_programs() -> dict[str, str]:
    """Every program at the top and in tools/ -> the module of options that it imports its parser from."""
    parser = re.compile(r"^from options\.(\w+) import .*\bparse_args\b", re.M)
    paths = sorted([*ROOT.glob("*.py"), *(ROOT / "tools").glob("*.py")])
    found = {path.relative_to(ROOT).as_posix(): parser.search(path.read_text()) for path in paths}
    return {name: match[1] for name, match in found.items() if match}


PROGRAMS = find_programs()


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


@contextlib.contextmanager
def refuses(*parts: str):
    """Asserts that the block ends with a UserError whose sentence has these parts: what was given, what was expected, what
    to type. Not its wording."""
    with pytest.raises(UserError) as caught:
        yield
    for part in parts:
        assert part in str(caught.value), (part, str(caught.value))


def refused(ran: Ran, *words: str) -> None:
    """Asserts that a mistake was answered by status 2 and one sentence with these parts, see `refuses`."""
    assert ran.status == 2, (ran.status, ran.out, ran.err)
    lines = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in lines[0], (word, lines[0])
