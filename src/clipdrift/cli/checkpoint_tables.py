"""Tables for the terminal: what a checkpoint is, keeps and moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from clipdrift.cli.terminal import Sheet, line

if TYPE_CHECKING:
    from clipdrift.checkpoint.checks import Finding
    from clipdrift.records import RunRecord
    from clipdrift.records.correct import Correct
    from clipdrift.records.readings import Reading
    from clipdrift.records.transfer import TransferReading

STYLES = {"ok": "", "note": "yellow", "wrong": "bold red"}


def findings_table(title: str, findings: Sequence[Finding]) -> Sheet:
    """One row per check."""
    table = Sheet(title)
    for name in ("check", "", "found"):
        table.column(name, wraps=name == "found")
    for finding in findings:
        row = (finding.check, finding.status, finding.text)
        table.row(*row, style=STYLES[finding.status])
    return table


def transfer_table(
    transfers: Mapping[str, TransferReading], title: str, correct: Mapping[str, Correct]
) -> Sheet:
    """Zero-shot accuracy before and now, in percent, with why there is no retention.

    Args:
        correct: which images were right; of sets that are not in it no error from images is told.
    """
    table = Sheet(title)
    names = ("set", "images", "chance %", "baseline %", "now %", "kept %", "change pp")
    for name in names:
        table.column(name, right=name != "set")
    for name, reading in transfers.items():
        table.row(
            name,
            f"{reading.n_images:,}",
            _number(reading.guess, 100),
            _number(reading.baseline_accuracy, 100),
            _number(reading.accuracy, 100),
            _kept(name, reading, correct),
            _number(reading.delta_accuracy_pp, signed=True),
        )
    reasons = [
        f"{name}: {why}"
        for name, reading in transfers.items()
        if (why := reading.at_chance or reading.few_right)
    ]
    error = ["± is the standard error from drawing images"] if correct else []
    table.caption = line("; ".join([*error, *reasons])) if error or reasons else None
    return table


def _kept(name: str, reading: TransferReading, correct: Mapping[str, Correct]) -> str:
    """Retention with its error from images, paired with the baseline's."""
    from clipdrift.analysis.statistics.influence import retention_error

    kinds = ("accuracy", "baseline_accuracy")
    now, before = (correct.get(f"transfer.{name}.{kind}") for kind in kinds)
    kept = _number(reading.retention_pct)
    if reading.retention_pct is None or now is None or before is None:
        return kept
    return f"{kept} ± {retention_error(now, before):.1f}"


def drift_table(drift: Mapping[str, Reading]) -> Sheet:
    """Every drift signal, a column per target whose probe images it was read on."""
    table = Sheet("Drift against the baseline")
    table.column("signal")
    for target in drift:
        table.column(f"probe images of {target}", right=True)
    names = {name: None for reading in drift.values() for name in reading.drift}
    for name in names:
        table.row(name, *(_signal(reading.drift.get(name)) for reading in drift.values()))
    return table


def block_table(reading: Reading, target: str) -> Sheet:
    """Drift block by block, from the first to the last: a column a signal."""
    table = Sheet(f"Drift per block, probe images of {target}")
    table.column("block", right=True)
    for name in reading.drift_per_block:
        table.column(name, right=True)
    for block, values in enumerate(zip(*reading.drift_per_block.values(), strict=True)):
        table.row(str(block), *map(_signal, values))
    return table


def exportable_table(records: Sequence[RunRecord]) -> Sheet:
    """Runs by target, the most accurate first: what they reach, and what they keep."""
    table = Sheet("Runs with weights")
    table.column("run")
    table.column("test acc. %", right=True)
    kept = list(dict.fromkeys(name for record in records for name in record.result.transfer))
    for name in kept:
        table.column(f"{name} kept %", right=True)
    for record in sorted(records, key=lambda r: (r.target, -(r.result.test_accuracy or 0))):
        transfer = record.result.transfer
        shares = [transfer[name].retention_pct if name in transfer else None for name in kept]
        accuracy = _number(record.result.test_accuracy, 100)
        table.row(record.run_id, accuracy, *map(_number, shares))
    return table


def _signal(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _number(value: float | None, scale: float = 1, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return "-" if value is None else f"{scale * value:{sign}.2f}"
