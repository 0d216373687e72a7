"""Tables for the terminal, from plain rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from clipdrift.spec import RunConfig
from clipdrift.spec.audit import AuditRow

DRIFT = "drift.cls_entropy_pct"


def cell_table(analysis: Mapping[str, Any]) -> Table:
    """Target accuracy, retention and entropy drift of each cell, mean and SD over seeds."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in analysis["cells"]:
        key = (row["backbone"], row["target"], row["method"], row["lr"])
        rows.setdefault(key, {})[row["metric"]] = row
    kept = sorted({m for cell in rows.values() for m in cell if m.endswith(".retention_pct")})
    kept = [metric for metric in kept if metric.startswith("transfer.")]
    table = Table(title="Cells: mean ± SD over seeds")
    for name in ("target", "method", "LR", "n", "test acc. %"):
        table.add_column(name, justify="left" if name in {"target", "method"} else "right")
    for metric in kept:
        table.add_column(f"{metric.split('.')[1]} kept %", justify="right")
    table.add_column("entropy drift %", justify="right")
    for (_, target, method, rate), cell in rows.items():
        accuracy = cell.get("test_accuracy")
        mark = " *" if accuracy and accuracy["underfit"] else ""
        table.add_row(
            target,
            method,
            f"{rate:g}",
            str(accuracy["n"] if accuracy else ""),
            _mean_sd(accuracy, 100) + mark,
            *(_mean_sd(cell.get(metric)) for metric in kept),
            _mean_sd(cell.get(DRIFT), signed=True),
        )
    fraction = analysis["settings"]["underfit_fraction"]
    table.caption = f"* underfits: below {fraction:.0%} of the target's best cell"
    return table


def audit_table(rows: Sequence[AuditRow]) -> Table:
    """The matchedness audit of a study."""
    table = Table(title="Matchedness audit")
    for name in ("factor", "value", "between matched runs"):
        table.add_column(name)
    for row in rows:
        style = "bold red" if row.status == "leak" else None
        table.add_row(row.factor, row.value, row.status, style=style)
    return table


def run_table(runs: Sequence[RunConfig]) -> Table:
    """How many runs there are by target and method, and at which rates."""
    table = Table(title="Runs")
    for name in ("target", "method", "role", "learning rates", "runs"):
        table.add_column(name, justify="right" if name == "runs" else "left")
    groups: dict[tuple[str, ...], list[float]] = {}
    for run in runs:
        key: tuple[str, ...] = (run.target.name, run.method.name, run.method.role)
        groups.setdefault(key, []).append(run.learning_rate)
    for names, rates in groups.items():
        shown = ", ".join(f"{rate:g}" for rate in sorted(set(rates)))
        table.add_row(*names, shown, str(len(rates)))
    return table


def dataset_table() -> Table:
    """Every dataset known by name: where it comes from, its licence, whether it is at hand."""
    from clipdrift.data.builtin import known_names
    from clipdrift.data.catalogue import catalogue

    entries, cached = catalogue(), _cached_datasets()
    table = Table(title="Datasets")
    for name in ("builtin", "what", "classes", "licence", "source", "here"):
        table.add_column(name, justify="right" if name == "classes" else "left")
    for name in known_names():
        if name in entries:
            e = entries[name]
            here = "yes" if e.hub in cached else "no"
            table.add_row(name, e.title, str(e.n_classes), e.licence, e.hub, here)
        else:
            table.add_row(name, "in the package", "", "", "", "yes")
    return table


def _cached_datasets() -> set[str]:
    """Ids of hub datasets with files in the local cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return {repo.repo_id for repo in scan_cache_dir().repos if repo.repo_type == "dataset"}
    except CacheNotFound:
        return set()


def state_line(states: Mapping[str, str]) -> str:
    """For example `54 runs: 50 finished, 3 to do, 1 diverged`."""
    counts = Counter(states.values())
    parts = ", ".join(f"{n} {state}" for state, n in counts.most_common())
    return f"{len(states)} runs: {parts}" if states else "no runs planned"


def _mean_sd(row: Mapping[str, Any] | None, scale: float = 1, *, signed: bool = False) -> str:
    if row is None or row["mean"] is None:
        return "-"
    sign = "+" if signed else ""
    mean = f"{scale * row['mean']:{sign}.1f}"
    return mean if row["sd"] is None else f"{mean} ± {scale * row['sd']:.1f}"
