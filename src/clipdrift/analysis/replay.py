"""A study folder held against the figures published for a preset, or why it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from clipdrift.analysis.frame import runs_frame
from clipdrift.analysis.questions import probe_sensitivity, reproduction
from clipdrift.analysis.questions.supporting import with_supporting
from clipdrift.errors import Fault, RecordError, SpecError
from clipdrift.records import StudyFolder


class Replay(NamedTuple):
    """Published figures beside ours."""

    rows: list[reproduction.Reproduction]
    """As of `reproduction.rows`: every published figure, also those without a counterpart."""
    source: str
    """Where the figures were published."""
    leaks: tuple[str, ...]
    """Distinct leaks that the records of ours state."""
    faults: list[Fault]
    """Records and tables of probe images that could not be read; they count nowhere."""


def replay(folder: StudyFolder, preset: str) -> Replay:
    """Every published figure of a preset beside the one that the records of a folder give.

    The records may be measured or imported; only the names of their targets, methods and transfer
    sets, and their learning rates, must be those of the preset.

    Raises:
        SpecError: if nothing is published for the preset.
        RecordError: if the folder has no finished run, or none in a published cell.
        StudyFolderError: if the folder does not exist.
    """
    known = reproduction.published().get(preset)
    if known is None:
        presets = ", ".join(sorted(reproduction.published()))
        raise SpecError(
            Fault("preset", f"one with published figures ({presets})", repr(preset), "Name one")
        )
    records, faults = folder.records()
    runs = runs_frame(records)
    if runs.empty:
        step = "Run the study, or import records, first"
        nothing = Fault(str(folder.path), "at least one finished run", "none", step)
        raise RecordError([nothing, *faults])
    tables, damaged = probe_sensitivity.read_tables(folder, records)
    faults += damaged
    known_runs = {run_id: tables[run_id] for run_id in runs["run_id"] if run_id in tables}
    runs = with_supporting(runs, records, probe_sensitivity.rows(known_runs))
    rows = reproduction.rows(runs, preset)
    if not any(row.n for row in rows if row.kind == "cell"):
        raise RecordError([_no_cell(folder, preset, known, runs), *faults])
    leaks = tuple(sorted({leak for record in records for leak in record.leaks}))
    return Replay(rows, known["source"], leaks, faults)


def _no_cell(
    folder: StudyFolder, preset: str, known: Mapping[str, Any], runs: pd.DataFrame
) -> Fault:
    targets, methods, rates = zip(*(cell[:3] for cell in known["cells"]), strict=True)
    ours = (runs[key] for key in ("target", "method", "learning_rate"))
    return Fault(
        str(folder.path),
        f"runs in a cell of {preset} with one of its figures ({_axes(targets, methods, rates)})",
        _axes(*(list(values) for values in ours)),
        "Name targets, methods and transfer sets as the preset does, in the study or in the map "
        "of the import",
    )


def _axes(targets: Any, methods: Any, rates: Any) -> str:
    shown = [
        f"targets {', '.join(sorted(set(targets)))}",
        f"methods {', '.join(sorted(set(methods)))}",
        f"learning rates {', '.join(f'{rate:g}' for rate in sorted(set(rates)))}",
    ]
    return "; ".join(shown)
