"""What a section of the page is made of; the template has a macro of the same name for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from clipdrift.report.answer import Answer
from clipdrift.report.attention import AttentionImage
from clipdrift.report.chosen import ChoiceCard
from clipdrift.report.figures.chart import Chart
from clipdrift.report.notices import Notice
from clipdrift.report.printed import Sentence
from clipdrift.report.source import Study
from clipdrift.report.tables import Table


@dataclass(frozen=True)
class Charts:
    """Figures side by side; `otherwise` is what the records lack where there are none."""

    kind: ClassVar = "charts"
    found: Sequence[Chart]
    columns: str = ""
    group: str = ""
    otherwise: str = ""


@dataclass(frozen=True)
class Words:
    kind: ClassVar = "words"
    found: Sequence[Sentence]


@dataclass(frozen=True)
class Answers:
    kind: ClassVar = "answers"
    found: Sequence[Answer]


@dataclass(frozen=True)
class Choices:
    kind: ClassVar = "choices"
    found: Sequence[ChoiceCard]


@dataclass(frozen=True)
class Notices:
    kind: ClassVar = "notices"
    title: str
    found: Sequence[Notice]
    urgent: bool = False


@dataclass(frozen=True)
class Pictures:
    kind: ClassVar = "pictures"
    found: Sequence[AttentionImage]
    omitted: int
    otherwise: str = ""
    where: str = "runs/*/attention"


@dataclass(frozen=True)
class Group:
    """Blocks under a heading, or folded away under a summary; left out where all are empty."""

    kind: ClassVar = "group"
    title: str
    blocks: Sequence[Block]
    lead: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Aid:
    """What helps to read figures and is nothing alone: the name of a macro, what it takes."""

    kind: ClassVar = "aid"
    macro: str
    takes: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Pre:
    """A file as it is."""

    kind: ClassVar = "pre"
    found: str


Block = Charts | Words | Answers | Choices | Notices | Pictures | Group | Aid | Pre | Table | None


class Section(NamedTuple):
    """A section of the page; one whose blocks are all empty is not shown.

    nav: its name in the list of sections. lead: its first paragraph, where it says what a reader
    sees; trusted HTML, so never a name from a record.
    """

    id: str
    nav: str
    title: str
    blocks: Callable[[Study], Sequence[Block]]
    lead: Callable[[Study], str] = lambda _: ""


class Built(NamedTuple):
    """A section with the blocks of a study."""

    section: Section
    lead: str
    blocks: Sequence[Block]


def built(sections: Sequence[Section], study: Study) -> list[Built]:
    """Every section, empty ones too."""
    return [Built(one, one.lead(study), one.blocks(study)) for one in sections]


def is_there(block: Block) -> bool:
    """Whether a block has something to show."""
    if isinstance(block, Group):
        return any(map(is_there, block.blocks))
    return isinstance(block, Table) or bool(getattr(block, "found", ()))


def inside(blocks: Sequence[Block]) -> Iterator[Block]:
    """Blocks and those of their groups."""
    for block in blocks:
        yield block
        if isinstance(block, Group):
            yield from inside(block.blocks)
