"""Draw a first study in the terminal as a moving picture: an SVG that browsers and forges play.

    python tools/terminal_picture.py docs/terminal.svg

The commands below are really run, in a scratch folder, and what they print is shown as they print
it; only waiting is shortened. The picture is of text: small, sharp at any size, and without colour
but that of the prompt. Who asked for less motion sees the last screen.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

COMMANDS = (
    "init --quick --out study.yaml",
    "plan study.yaml",
    "run study.yaml --out results/",
    "choose results/ --within 5",
)
WIDTH, SHOWN = 100, 26
"""Columns and rows."""
CHARACTER, LINE, EDGE = 7.8, 17, 14
"""Size of a character, in pixels, and the margin."""
LONGEST, SHORTEST, TYPING, REST = 1.2, 0.06, 0.9, 6.0
"""Seconds that a line is waited for, at most and at least; before a command; at the end."""

Line = tuple[float, str, bool]
"""When it appears, what it says, whether it was typed."""


def recorded(commands: Sequence[str], folder: Path) -> Iterator[Line]:
    """Run the commands one after another; their lines, with waiting shortened."""
    at = 0.0
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    for command in commands:
        at += TYPING
        yield at, f"$ clipdrift {command}", True
        heard = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "clipdrift", *command.split()],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        for text in process.stdout:
            at += min(LONGEST, max(SHORTEST, time.monotonic() - heard))
            heard = time.monotonic()
            yield at, text.rstrip().replace(str(folder), "."), False
        if process.wait():
            raise SystemExit(f"clipdrift {command} ended with exit code {process.returncode}")


def svg(lines: Sequence[Line]) -> str:
    """The picture: each line appears at its time, and the screen moves up when it is full."""
    length = lines[-1][0] + REST
    moves = [
        f"{100 * at / length:.2f}% {{ transform: translateY(-{LINE * row}px) }}"
        for row, (at, _, _) in enumerate(lines[SHOWN:], start=1)
    ]
    width, height = round(WIDTH * CHARACTER + 2 * EDGE), SHOWN * LINE + 2 * EDGE + 4
    appear = "\n".join(
        f"@keyframes at{row} {{ 0% {{ opacity: 0 }} {100 * at / length:.2f}% {{ opacity: 1 }} }}"
        for row, (at, _, _) in enumerate(lines)
    )
    rows = "\n".join(
        f'<text y="{LINE * (row + 1)}" class="{"typed" if typed else "said"}" '
        f'style="animation-name: at{row}">{escape(text[:WIDTH])}</text>'
        for row, (_, text, typed) in enumerate(lines)
        if text
    )
    end = f"transform: translateY(-{LINE * max(0, len(lines) - SHOWN)}px)"
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
  aria-label="A first study in a terminal: init, plan, run, choose">
<style>
text {{ font: 13px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }}
.said {{ fill: #d5d9e0 }} .typed {{ fill: #7ee787; font-weight: bold }}
text, #screen {{ animation: {length:.1f}s step-end infinite }}
#screen {{ animation-name: up }}
@keyframes up {{ 0% {{ transform: none }} {" ".join(moves)} 100% {{ {end} }} }}
{appear}
@media (prefers-reduced-motion) {{
  text {{ animation: none !important }}
  #screen {{ animation: none; {end} }}
}}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#11161d"/>
<svg x="{EDGE}" y="{EDGE}" width="{width - 2 * EDGE}" height="{height - 2 * EDGE}"><g id="screen">
{rows}
</g></svg>
</svg>
"""


def main(out: str) -> None:
    """Record and draw."""
    with tempfile.TemporaryDirectory() as scratch:
        lines = list(recorded(COMMANDS, Path(scratch)))
    Path(out).write_text(svg(lines), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
