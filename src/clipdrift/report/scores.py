"""What the score of a target is called where it is no accuracy: see decision 18."""

from __future__ import annotations

import re
from dataclasses import replace

from clipdrift.report.printed import Sentence
from clipdrift.report.tables import Table

WORDS = {"mean_recall": "mean recall", "map": "mean average precision"}
ACCURACY = re.compile(r"(?<![Zz]ero-shot )\baccuracy\b|\baccuracy(?= on the target)")
"""Of the target: what other sets are read by has its own name, and "zero-shot" before it."""


def sentences_of(score: str, sentences: list[Sentence]) -> list[Sentence]:
    """Sentences about one target in the words of its score; numbers stay as they are."""
    if score not in WORDS:
        return sentences
    return [
        [_worded(score, part) if isinstance(part, str) else part for part in sentence]
        for sentence in sentences
    ]


def table_of(score: str, table: Table) -> Table:
    """A table about one target likewise: its headings and its note."""
    if score not in WORDS:
        return table
    columns = [
        replace(one, label=_worded(score, one.label), title=_worded(score, one.title))
        for one in table.columns
    ]
    (note,) = sentences_of(score, [list(table.note)])
    return replace(table, columns=columns, note=note)


def _worded(score: str, text: str) -> str:
    """
    >>> _worded("mean_recall", "At equal validation accuracy, of the zero-shot accuracy on pets")
    'At equal validation mean recall, of the zero-shot accuracy on pets'
    """
    return ACCURACY.sub(WORDS[score], text)
