"""Everything that is printed: one way out, on which no text of a file reaches the terminal raw.

Names in records, folders, adapters and models are their makers'. What a terminal would obey in
them, or what a reader would not see, is printed as its code.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from typing import Annotated, Any, cast

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from clipdrift.errors import ClipdriftError, Fault, printable, told

NO_WIDTH = 10_000
"""Columns of what has no width."""


def say(*lines: str, err: bool = False) -> None:
    """Print each line as one, on standard output or, if that takes it, on standard error."""
    for line in lines:
        with suppress(OSError) if err else nullcontext():
            print(printable(line), file=sys.stderr if err else sys.stdout, flush=err)


def note(*lines: str, err: bool = False) -> None:
    """The same for what is no answer: how far it is, what to do next. Nothing with `--quiet`."""
    if not is_quiet():
        say(*lines, err=err)


def is_quiet() -> bool:
    """Whether answers and errors alone are printed."""
    return _STATE["quiet"]


def _set_quiet(given: bool) -> bool:
    _STATE["quiet"] = given
    return given


_STATE = {"quiet": False}
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=_set_quiet, help="answers, troubles and errors alone"),
]


def say_json(value: object) -> None:
    """Print a value as JSON in which every character outside ASCII is an escape."""
    # DEL is the one control character that JSON leaves as it is.
    print(json.dumps(value, indent=1, allow_nan=False, default=vars).replace("\x7f", "\\u007f"))


def line(text: str, style: str = "") -> Text:
    """One line for a terminal, which breaks it at words where it is narrower."""
    return Text(printable(text), style=style)


class Terminal(Console):
    """A console that takes text as text: no markup, no emoji codes, no control characters.

    Into a file or a pipe, which have no width of their own, a row of a table is a line.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        if "width" not in options and "COLUMNS" not in os.environ and not self.is_terminal:
            self.width = NO_WIDTH

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
    """A table of plain texts that is never cut: too narrow a terminal gets a line for each cell."""

    def __init__(self, title: str = "", **options: Any) -> None:
        super().__init__(title=line(title) if title else None, **options)
        self.wraps: list[bool] = []

    def column(self, name: str, *, right: bool = False, wraps: bool = False) -> None:
        """Add a column; `right` for numbers; `wraps` for sentences, which may take more lines."""
        self.add_column(line(name), justify="right" if right else "left")
        self.wraps.append(wraps)

    def row(self, *cells: str, style: str = "") -> None:
        """Add a row."""
        self.add_row(*map(line, cells), style=style)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(console, options)
        if widths is not None:
            for column, width in zip(self.columns, widths, strict=True):
                column.width = width
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield self.title
        yield from self._as_lines()
        if self.caption:
            yield self.caption

    def _widths(self, console: Console, options: ConsoleOptions) -> list[int] | None:
        """A width for each column so that only headings and sentences are broken, at spaces.

        None where there is no room for that.
        """
        least, most = [], []
        for column, wraps in zip(self.columns, self.wraps, strict=True):
            column.width = None
            cells = [str(cell) for cell in column.cells]
            whole = [word for cell in cells for word in (cell.split() if wraps else [cell])]
            heading = str(column.header)
            least.append(max(map(cell_len, [*heading.split(), *whole]), default=0))
            most.append(max(map(cell_len, [heading, *cells])))
        room = options.update_width(NO_WIDTH)
        frame = Measurement.get(console, room, self).maximum - sum(most)
        spare = options.max_width - frame - sum(least)
        if spare < 0:
            return None
        for i in sorted(range(len(least)), key=lambda i: most[i] - least[i]):
            more = min(spare, most[i] - least[i])
            least[i], spare = least[i] + more, spare - more
        return least

    def _as_lines(self) -> Iterator[Table]:
        """The cells of each row under each other, with the names of their columns."""
        columns = [(str(column.header), list(column.cells)) for column in self.columns]
        for i, row in enumerate(self.rows):
            lines = Table.grid(padding=(0, 1, 0, 0))
            lines.add_column()
            lines.add_column(overflow="fold")
            for name, cells in columns:
                lines.add_row(line(name), cells[i])
            lines.style = row.style or ""
            yield lines
            yield Table.grid()


def guarded(call: Callable[[], Any]) -> int:
    """Call the command line; gives its exit code, with all that went wrong told in lines."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that does not know a character shows a code
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _warning
    logging.setLogRecordFactory(_record)
    code, out = 0, sys.stdout
    sys.stdout = cast(Any, _Printed(out))
    try:
        code = _outcome(call)
        sys.stdout.flush()
    except CannotPrintError as error:
        _tell_elsewhere(error)
        return code or 2
    finally:
        sys.stdout = out
    return code


class CannotPrintError(OSError):
    """Standard output takes no more: a full disk, a reader or a terminal that is gone."""


class _Printed:
    """Standard output whose failures are told from those of other files."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        self._try(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except OSError as error:
            raise CannotPrintError(*error.args) from error


def _outcome(call: Callable[[], Any]) -> int:
    try:
        return int(call() or 0)
    except ClipdriftError as error:
        if "--json" in sys.argv:
            say_json({"faults": [vars(fault) for fault in error.faults]})
        else:
            say(*told(error.faults), err=True)
        return 2
    except CannotPrintError:
        raise
    except Exception as error:
        if not hasattr(error, "format_message"):
            say(*traceback.format_exc().splitlines(), err=True)
            return 1
        _tell_usage(error)
        return int(getattr(error, "exit_code", 2))


def _tell_elsewhere(error: CannotPrintError) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where Python flushes what is left
    if error.errno != errno.EPIPE:
        step = "Print to another place; what was measured is safe"
        say(str(Fault("standard output", "a place that takes it", str(error), step)), err=True)


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
