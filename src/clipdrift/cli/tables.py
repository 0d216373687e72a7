"""Tables for the terminal, from plain rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipdrift.cli.progress import duration
from clipdrift.cli.terminal import Sheet, line
from clipdrift.errors import Fault, SpecError

if TYPE_CHECKING:
    from clipdrift.run.progress import Progress
    from clipdrift.spec import RunConfig
    from clipdrift.spec.audit import AuditRow

DRIFT = "drift.cls_entropy_pct"
FIT_SIGNS = {"underfits": " *", "damaged": " **"}
FIT_KEY = "* underfits, ** damaged (past its peak)"


def cell_table(analysis: Mapping[str, Any]) -> Sheet:
    """Target accuracy, retention and entropy drift of each cell, mean and SD over seeds."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in analysis["cells"]:
        key = (row["backbone"], row["target"], row["method"], row["learning_rate"])
        rows.setdefault(key, {})[row["metric"]] = row
    kept = sorted({m for cell in rows.values() for m in cell if m.endswith(".retention_pct")})
    kept = [metric for metric in kept if metric.startswith("transfer.")]
    stopped = Counter(
        (row["backbone"], row["target"], row["method"], row["learning_rate"])
        for row in analysis["warnings"]
        if row["kind"] == "run_stopped"
    )
    table = Sheet("Cells: mean ± SD over seeds")
    others = any(row["kind"] == "other_score" for row in analysis["warnings"])
    score = "test score %" if others else "test acc. %"
    for name in ("target", "method", "LR", "n", score):
        table.column(name, right=name not in {"target", "method"})
    for metric in kept:
        table.column(f"{metric.split('.')[1]} kept %", right=True)
    table.column("entropy drift %", right=True)
    for key in dict.fromkeys([*rows, *stopped]):
        (_, target, method, rate), cell = key, rows.get(key, {})
        accuracy = cell.get("test_accuracy")
        mark = FIT_SIGNS.get(accuracy["fit"], "") if accuracy else ""
        table.row(
            target,
            method,
            f"{rate:g}",
            _count(accuracy, stopped[key]),
            _mean_sd(accuracy, 100) + mark,
            *(_mean_sd(cell.get(metric)) for metric in kept),
            _mean_sd(cell.get(DRIFT), signed=True),
        )
    fraction = analysis["settings"]["underfit_fraction"]
    caption = f"below {fraction:.0%} of the target's best cell: {FIT_KEY}"
    if stopped:
        caption += "; stopped: paused by a race, in no mean"
    table.caption = line(caption)
    return table


def _count(row: Mapping[str, Any] | None, stopped: int) -> str:
    """Runs in a cell's means, and those that were stopped early."""
    n = row["n"] if row else 0
    return f"{n} ({stopped} stopped)" if stopped else str(n or "")


def audit_table(rows: Sequence[AuditRow]) -> Sheet:
    """The matchedness audit of a study."""
    table = Sheet("Matchedness audit")
    for name in ("factor", "value", "between matched runs"):
        table.column(name, wraps=name == "value")
    for row in rows:
        style = "bold red" if row.status == "leak" else ""
        table.row(row.factor, row.value, row.status, style=style)
    return table


def run_table(runs: Sequence[RunConfig]) -> Sheet:
    """How many runs there are by target and method, and at which rates."""
    table = Sheet("Runs")
    for name in ("target", "method", "role", "learning rates", "runs"):
        table.column(name, right=name == "runs", wraps=name == "learning rates")
    groups: dict[tuple[str, ...], list[float]] = {}
    for run in runs:
        key: tuple[str, ...] = (run.target.name, run.method.name, run.method.role)
        groups.setdefault(key, []).append(run.learning_rate)
    for names, rates in groups.items():
        shown = ", ".join(f"{rate:g}" for rate in sorted(set(rates)))
        table.row(*names, shown, str(len(rates)))
    return table


def dataset_table() -> Sheet:
    """Every dataset known by name: where it comes from and whether it is at hand.

    Files in the cache of the hub's library count; images that were prepared from them do not.
    """
    from clipdrift.data.builtin import known_names
    from clipdrift.data.catalogue import catalogue
    from clipdrift.spec.suites import SUITES

    entries, cached = catalogue(), _cached_datasets()
    table = Sheet("Datasets")
    for name in ("builtin", "what", "classes", "source", "here"):
        table.column(name, right=name == "classes", wraps=name in {"what", "source"})
    for name in known_names():
        if name in entries:
            e = entries[name]
            here = cached.get(str(e.hub), "no") if e.hub else "-"
            count = "captions" if e.caption_column else f"{e.n_classes:,}"
            table.row(name, e.title, count, e.source, here)
        else:
            table.row(name, "comes with the package", "", "", "yes")
    suites = f"Suites, in a study {{suite: NAME}}: {', '.join(SUITES)}"
    table.caption = line(f"One of them in full: clipdrift datasets NAME. {suites}")
    return table


def dataset_card(name: str) -> list[str]:
    """One dataset known by name, in full: how a study names it, its classes, prompts, citation.

    Of a suite its members.

    Raises:
        SpecError: a name that is not known.
    """
    from clipdrift.data.builtin import known_names
    from clipdrift.data.catalogue import catalogue
    from clipdrift.spec.suites import SUITES

    if name in SUITES:
        return [
            f"{name}: a suite of {len(SUITES[name])} sets",
            f"In a study: {{suite: {name}, n_images: 1000}}",
            f"  {', '.join(SUITES[name])}",
        ]
    if name not in known_names():
        step = "Choose one; other data go under folder, files or hub"
        names = ", ".join((*known_names(), *SUITES))
        raise SpecError(Fault("NAME", f"one of {names}", repr(name), step))
    entry = catalogue().get(name)
    if entry is None:
        return [f"{name}: comes with the package", f"In a study: {name}"]
    where = f"builtin: {name}" if entry.hub else f"builtin: {name}, folder: /path/to/your/copy"
    parts = [f"{part} = {split}" for part, split in entry.splits.model_dump().items() if split]
    holds = "images with captions" if entry.caption_column else f"{entry.n_classes:,} classes"
    lines = [
        f"{name}: {entry.title}, {holds}",
        f"In a study: {{name: {name}, {where}}}",
        f"Source: {entry.source} ({', '.join(parts)})",
        *(
            [f"Or folder: your copy of {len(entry.folder_names):,} class folders"]
            if entry.hub and entry.folder_names
            else []
        ),
        f"Licence: {entry.licence}",
        f"Cite: {entry.citation}",
    ]
    if entry.caption_column:
        return lines
    return [
        *lines,
        f"templates: single   {entry.templates[0]}",
        f"templates: ensemble {len(entry.templates)} prompts, the first of them the single one",
        *(f"  {template}" for template in entry.templates),
        f"Class names in label order, SHA-256 {entry.class_names_sha256[:16]}...:",
        f"  {', '.join(entry.class_names)}",
    ]


def _cached_datasets() -> dict[str, str]:
    """Hub datasets with files in the local cache: id -> size as people read it."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return {}
    return {
        repo.repo_id: f"yes, {repo.size_on_disk_str}"
        for repo in repos
        if repo.repo_type == "dataset"
    }


def state_line(states: Mapping[str, str]) -> str:
    """For example `54 runs: 50 finished, 3 to do, 1 diverged`."""
    counts = Counter(states.values())
    parts = ", ".join(f"{n} {state}" for state, n in counts.most_common())
    return f"{len(states)} runs: {parts}" if states else "no runs planned"


def status_of(state: str, progress: Progress | None) -> dict[str, Any]:
    """State of a run, with epochs done, of how many, and seconds left, where it is under way."""
    if progress is None:
        return {"state": state}
    left = progress.seconds_left if state == "running" else None
    return {
        "state": state,
        "epoch": progress.epoch,
        "epochs": progress.epochs,
        "seconds_left": left,
    }


def progress_words(progress: Progress | None, state: str) -> str:
    """For example `: epoch 3 of 10, about 14 s left`."""
    if progress is None:
        return ""
    left = status_of(state, progress)["seconds_left"]
    told = f", about {duration(left)} left" if left is not None else ""
    return f": epoch {progress.epoch} of {progress.epochs}{told}"


def _mean_sd(row: Mapping[str, Any] | None, scale: float = 1, *, signed: bool = False) -> str:
    if row is None or row["mean"] is None:
        return "-"
    sign = "+" if signed else ""
    mean = f"{scale * row['mean']:{sign}.1f}"
    return mean if row["sd"] is None else f"{mean} ± {scale * row['sd']:.1f}"
