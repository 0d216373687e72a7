"""Tables for the terminal: what a checkpoint is, keeps and moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from clipdrift.checkpoint.checks import Finding
    from clipdrift.records import RunRecord
    from clipdrift.records.schema import Reading
    from clipdrift.records.transfer import TransferReading

STYLES = {"ok": "", "note": "yellow", "wrong": "bold red"}


def findings_table(title: str, findings: Sequence[Finding]) -> Table:
    """One row per check."""
    table = Table(title=Text(title))
    for name in ("check", "", "found"):
        table.add_column(name)
    for finding in findings:
        # Names in a checkpoint are its maker's: plain text, never markup.
        row = (finding.check, finding.status, finding.text)
        table.add_row(*map(Text, row), style=STYLES[finding.status])
    return table


def transfer_table(transfers: Mapping[str, TransferReading]) -> Table:
    """Zero-shot accuracy before and now, in percent, with why there is no retention."""
    table = Table(title="Zero-shot transfer")
    for name in ("transfer", "images", "chance %", "baseline %", "now %", "kept %", "change pp"):
        table.add_column(name, justify="left" if name == "transfer" else "right")
    for name, reading in transfers.items():
        table.add_row(
            name,
            f"{reading.n_images:,}",
            _number(reading.guess, 100),
            _number(reading.baseline_accuracy, 100),
            _number(reading.accuracy, 100),
            _number(reading.retention_pct),
            _number(reading.delta_accuracy_pp, signed=True),
        )
    reasons = {name: why for name, reading in transfers.items() if (why := reading.at_chance)}
    if reasons:
        table.caption = Text("; ".join(f"{name}: {why}" for name, why in reasons.items()))
    return table


def drift_table(drift: Mapping[str, Reading]) -> Table:
    """Every drift signal, a column per target whose probe images it was read on."""
    table = Table(title="Drift against the baseline")
    table.add_column("signal")
    for target in drift:
        table.add_column(f"probe images of {target}", justify="right")
    names = {name: None for reading in drift.values() for name in reading.drift}
    for name in names:
        table.add_row(name, *(_signal(reading.drift.get(name)) for reading in drift.values()))
    return table


def exportable_table(records: Sequence[RunRecord]) -> Table:
    """Runs by target, the most accurate first: what they reach, and what they keep."""
    table = Table(title="Runs with weights")
    table.add_column("run", no_wrap=True)
    table.add_column("test acc. %", justify="right")
    kept = list(dict.fromkeys(name for record in records for name in record.result.transfer))
    for name in kept:
        table.add_column(f"{name} kept %", justify="right")
    for record in sorted(records, key=lambda r: (r.target, -(r.result.test_accuracy or 0))):
        transfer = record.result.transfer
        shares = [transfer[name].retention_pct if name in transfer else None for name in kept]
        row = (record.run_id, _number(record.result.test_accuracy, 100), *map(_number, shares))
        table.add_row(*map(Text, row))
    return table


def _signal(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _number(value: float | None, scale: float = 1, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return "-" if value is None else f"{scale * value:{sign}.2f}"


__all__ = ["drift_table", "exportable_table", "findings_table", "transfer_table"]
