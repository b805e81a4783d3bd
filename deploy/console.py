"""What every command of `chimata` shares: its options, lines for people, and its database."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from core.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

DATA_HELP = "Data folder; default: CHIMATA_DATA, else ./data."
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help=DATA_HELP)]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable.")]


def say(line: str) -> None:
    """One line on standard output, at once; a closed pipe is not our problem."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def console(*, stderr: bool = True) -> "Console":
    """Where tables and spinners go: standard error unless they are the answer."""
    from rich.console import Console

    return Console(stderr=stderr)


@contextmanager
def bar(total: int, what: str) -> "Iterator[Callable[[T], T]]":
    """A progress bar where somebody looks; its step passes on what was done, and counts it."""
    from rich.progress import Progress as Bars

    out = console()
    with Bars(console=out, disable=not out.is_terminal, transient=True) as bars:
        task = bars.add_task(what, total=total)

        def step(done: T) -> T:
            bars.advance(task)
            return done

        yield step


class Progress:
    """Lines for people: in a spinner while a terminal waits for something, plain otherwise."""

    def __init__(self) -> None:
        out = console()
        self._status = out.status("starting") if out.is_terminal else None

    def __enter__(self) -> "Progress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def __call__(self, line: str) -> None:
        if line and self._status is not None:
            self._status.update(line)
        elif line:
            sys.stderr.write(f"chimata: {line}\n")

    def finish(self) -> None:
        """What was waited for is there; lines that come later are plain."""
        if self._status is not None:
            self._status.stop()
            self._status = None


@contextmanager
def database(data: Path | None, *, create: bool = False) -> Iterator[str]:
    """URL of the database that a command works on; see deploy.local.database."""
    from deploy import local

    with (
        Progress() as report,
        local.database(Settings.from_environment(), data, report, create=create) as url,
    ):
        yield url
