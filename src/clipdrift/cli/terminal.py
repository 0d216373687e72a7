"""Everything that is printed: one way out, on which no text of a file reaches the terminal raw.

Names in records, folders, adapters and models are their makers'. What a terminal would obey in
them, or what a reader would not see, is printed as its code.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from clipdrift.errors import ClipdriftError, printable, told


def say(*lines: str, err: bool = False) -> None:
    """Print each line as one, on standard output or standard error."""
    for line in lines:
        print(printable(line), file=sys.stderr if err else sys.stdout, flush=err)


def say_json(value: object) -> None:
    """Print a value as JSON in which every character outside ASCII is an escape."""
    # DEL is the one control character that JSON leaves as it is.
    print(json.dumps(value, indent=1, allow_nan=False).replace("\x7f", "\\u007f"))


def line(text: str, style: str = "") -> Text:
    """One line for a terminal, which breaks it at words where it is narrower."""
    return Text(printable(text), style=style)


class Terminal(Console):
    """A console that takes text as text: no markup, no emoji codes, no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The pieces that are written; moves of the cursor come from rich alone, and stay."""
        for piece in super().render(renderable, options):
            if piece.control:
                yield piece
            else:
                yield Segment(printable(piece.text, keep="\n"), piece.style)


class Sheet(Table):
    """A table whose texts are plain."""

    def __init__(self, title: str = "", **options: Any) -> None:
        super().__init__(title=line(title) if title else None, **options)

    def column(self, name: str, *, right: bool = False) -> None:
        """Add a column; `right` for numbers."""
        self.add_column(line(name), justify="right" if right else "left")

    def row(self, *cells: str, style: str = "") -> None:
        """Add a row."""
        self.add_row(*map(line, cells), style=style)


def guarded(call: Callable[[], Any]) -> int:
    """Call the command line; gives its exit code, with all that went wrong told in lines."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that does not know a character shows a code
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _warning
    logging.setLogRecordFactory(_record)
    try:
        return int(call() or 0)
    except ClipdriftError as error:
        say(*told(error.faults), err=True)
        return 2
    except Exception as error:
        if not hasattr(error, "format_message"):
            say(*traceback.format_exc().splitlines(), err=True)
            return 1
        _tell_usage(error)
        return int(getattr(error, "exit_code", 2))


def _tell_usage(error: Any) -> None:
    """What typer has to say of options and arguments."""
    message = error.format_message()
    if not message:  # it has printed the help
        return
    context = getattr(error, "ctx", None)
    name = context.command_path if context is not None else "clipdrift"
    say(f"{name}: {message}", f"Try '{name} --help'.", err=True)


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: Any = None
) -> str:
    """What a library warns of, which may name parts of somebody's model."""
    return printable(f"{category.__name__}: {message}") + "\n"


def _record(*what: Any, **more: Any) -> logging.LogRecord:
    """The same of what it logs."""
    record = logging.LogRecord(*what, **more)
    record.msg, record.args = printable(record.getMessage(), keep="\n"), ()
    return record


__all__ = ["Sheet", "Terminal", "guarded", "line", "say", "say_json"]
