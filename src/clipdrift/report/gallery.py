"""Many studies as one static site: a page that filters them, and each one's report to open."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from clipdrift.records import StudyFolder, atomic_write
from clipdrift.records.bundle import SUFFIX, Manifest, write_bundle
from clipdrift.report.answer import answers
from clipdrift.report.printed import Sentence
from clipdrift.report.read import read_study
from clipdrift.report.static import slug
from clipdrift.report.write import write_report

FILTERS = {"backbone": "Backbone", "target": "Target", "method": "Method"}
PICTURE = "plane-0-*.png"


class Card(NamedTuple):
    """What the first page says of a study; paths are relative to it.

    bundle: None where no licence lets anyone pass the records on. found: each target with the first
    sentence of its answer.
    """

    title: str
    place: str
    picture: str | None
    bundle: str | None
    licence: str | None
    citation: str | None
    runs: int
    filters: dict[str, list[str]]
    found: list[tuple[str, str]]


def write_gallery(studies: Iterable[tuple[StudyFolder, Manifest]], out: Path) -> list[Card]:
    """Write `index.html`, and for every study its report, picture and bundle.

    Args:
        studies: folders opened from a bundle, that may be written to, with what it says.

    Raises:
        RecordError: if a study has no finished run.
        StudyFolderError: if `out` cannot be written.
    """
    cards: list[Card] = []
    taken: set[str] = set()
    for folder, manifest in studies:
        name = slug(manifest.title, 0).removeprefix("0-") or "study"
        while name in taken:
            name = f"{name}-{len(cards) + 1}"
        taken.add(name)
        cards.append(_study(folder, manifest, out, f"studies/{name}"))
    atomic_write(out / "index.html", _index(cards))
    return cards


def _study(folder: StudyFolder, manifest: Manifest, out: Path, place: str) -> Card:
    report = write_report(folder)
    own = out / place
    own.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(report, own / "report.html")
    pictures = sorted(folder.figures_path.glob(PICTURE))
    if pictures:
        shutil.copyfile(pictures[0], own / "picture.png")
    bundle = f"study{SUFFIX}" if manifest.licence else None
    if bundle:
        # What was said of it lies in the folder, which was opened from a bundle.
        write_bundle(folder, own / bundle)
    study = read_study(folder)
    records = [record for record in study.records if record.status == "finished"]
    return Card(
        title=manifest.title,
        place=place,
        picture=f"{place}/picture.png" if pictures else None,
        bundle=bundle and f"{place}/{bundle}",
        licence=manifest.licence,
        citation=manifest.citation,
        runs=len(records),
        filters={name: sorted({getattr(r, name) for r in records}) for name in FILTERS},
        found=[(one.title, _text(one.sentences[0])) for one in answers(study) if one.sentences],
    )


def _text(sentence: Sentence) -> str:
    return "".join(part if isinstance(part, str) else part.text for part in sentence)


def _index(cards: Sequence[Card]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("clipdrift.report"), autoescape=True, undefined=StrictUndefined
    )
    known = {
        name: sorted({value for card in cards for value in card.filters[name]}) for name in FILTERS
    }
    template = environment.get_template("gallery.html")
    return template.render(cards=cards, filters=FILTERS, known=known)
