"""Keep the records behind a results page, and make the page's tables and figures from them.

    python tools/results_page.py pack runs/real-small docs/results/real-small
    python tools/results_page.py make docs/results/real-small
    python tools/results_page.py check docs/results/real-small

`pack` makes the bundle `records.tar.xz` (`clipdrift bundle`). `make`
analyses them and writes anew what the page shows of them: every block of `real-small.md` between
`<!-- made: NAME ARGUMENTS -->` and `<!-- end -->`, every CSV file and every figure that lies in
`real-small/`. `check` says whether the page is what its records give. People write the words.
"""

from __future__ import annotations

import math
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import results_located
import results_tables

import clipdrift
from clipdrift.analysis.files import to_csv, write_analysis
from clipdrift.records import StudyFolder
from clipdrift.report import write_report
from clipdrift.report.answer import answers
from clipdrift.report.read import read_study
from clipdrift.report.source import Study

NUMBER = re.compile(rb"(?<![\w.])-?\d+\.\d+(?:e-?\d+)?(?![\w.])")
"""Whole, so that names of runs and hashes are held letter by letter."""

ARCHIVE = "records.tar.xz"
TABLES = results_tables.TABLES | results_located.TABLES
BLOCK = re.compile(r"(<!-- made: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def pack(study: Path, place: Path) -> None:
    clipdrift.bundle(study, place / ARCHIVE, title=place.name, licence="Apache-2.0")


def unpack(place: Path, folder: Path) -> StudyFolder:
    clipdrift.import_runs(place / ARCHIVE, None, folder)
    return StudyFolder(folder)


def made(place: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file of a page with what its records give."""
    with tempfile.TemporaryDirectory() as scratch:
        study = unpack(place, Path(scratch))
        analysis = write_analysis(study)
        read, page = read_study(study), place.with_suffix(".md")
        text = page.read_text(encoding="utf-8")
        yield page, BLOCK.sub(lambda block: _block(block, read), text).encode()
        for path in sorted(place.glob("*.csv")):
            yield path, to_csv(path.stem, analysis[path.stem]).encode()
        figures = sorted(place.glob("*.png"))
        if figures:
            write_report(study)
        for path in figures:
            yield path, (study.figures_path / path.name).read_bytes()


def _block(block: re.Match[str], study: Study) -> str:
    name, *arguments = block[2].split()
    make = {"answer": answer, "limits": limits}.get(name)
    text = make(study, *arguments) if make else TABLES[name](study.analysis, *arguments)
    return f"{block[1]}{text}{block[3]}"


def answer(study: Study, target: str) -> str:
    """The sentences that the report opens with."""
    return _sentences(study, target, "sentences")


def limits(study: Study, target: str) -> str:
    """What the report says that the records cannot tell."""
    return _sentences(study, target, "limits")


def _sentences(study: Study, target: str, part: str) -> str:
    place = next(i for i, place in enumerate(study.places) if place.target == target)
    found = getattr(answers(study)[place], part)
    texts = ("".join(piece if isinstance(piece, str) else piece.text for piece in s) for s in found)
    return "".join(f"- {text}\n" for text in texts).replace("\u00a0", " ")


def same(theirs: bytes, ours: bytes) -> bool:
    """Whether two texts agree but for the last digits of numbers, which hang on the processor.

    >>> same(b"a,0.8187456671650869", b"a,0.8187456671650867"), same(b"a,0.81", b"a,0.82")
    (True, False)
    """
    if NUMBER.sub(b"", theirs) != NUMBER.sub(b"", ours):
        return False
    pairs = zip(NUMBER.findall(theirs), NUMBER.findall(ours), strict=True)
    return all(a == b or math.isclose(float(a), float(b), rel_tol=1e-9) for a, b in pairs)


def main(task: str, *places: str) -> int:
    if task == "pack":
        pack(*map(Path, places))
        return 0
    wrong = 0
    for path, data in (item for place in places for item in made(Path(place))):
        if task == "make":
            path.write_bytes(data)
        elif path.suffix != ".png" and not same(path.read_bytes(), data):  # pixels hang on fonts
            print(f"{path} is not what its records give. Run: python {sys.argv[0]} make")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
