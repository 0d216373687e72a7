"""Rankings of many methods on the page: one line per method, one pair of columns per view."""

from __future__ import annotations

from dataclasses import replace

from clipdrift.report.metrics import UNDEFINED, metric
from clipdrift.report.printed import Printed, of_row
from clipdrift.report.source import Row, Study
from clipdrift.report.tables import (
    MAX_ROWS,
    Column,
    Shown,
    Table,
    analysis_table,
    metric_of,
    place_columns,
    word,
)

TABLE = "ranking"
VIEWS = {
    "equal_learning_rate": ("equal LR", "mean over the learning rates that all methods share"),
    "own_best_rate": ("own best LR", "at the method's best validation accuracy"),
    "equal_val_accuracy": (
        "equal accuracy",
        "at the validation accuracy under which a cell underfits",
    ),
    "equal_weight_drift": (
        "equal movement",
        "where the weights have moved as far as the median method's",
    ),
}
NOTE = (
    "Rank 1 is the highest value; in a rank's tip the ranks that paired t tests against the other "
    "methods leave open. A method whose curve does not reach what is held equal has no rank there; "
    "why is in its tip. tables/ranking.csv has the learning rate at which each gets there."
)
Line = dict[str, tuple[int, Row]]


def ranking_table(study: Study) -> Table | None:
    """A line per target, metric and method; None for fewer than three matched methods."""
    lines: dict[tuple[str, ...], Line] = {}
    for position, row in study.rows(TABLE):
        key = (row["backbone"], row["target"], row["metric"], row["method"])
        lines.setdefault(key, {})[row["view"]] = (position, row)
    if not lines:
        return None
    several = len(study.backbones) > 1
    texts = ["Backbone"] * several + ["Target", "Metric", "Method"]
    columns = [Column(name, numeric=False) for name in texts]
    for label, title in VIEWS.values():
        columns += [Column(f"Rank, {label}", title), Column(f"Value, {label}", title)]
    rows = [_line(study, key[not several :], line) for key, line in lines.items()]
    omitted = max(0, len(rows) - MAX_ROWS)
    file = f"tables/{TABLE}.csv"
    caption = "Methods ranked, by what is held equal between them"
    return Table(TABLE, caption, columns, rows[:MAX_ROWS], len(texts), (), [NOTE], omitted, file)


def _line(study: Study, names: tuple[str, ...], line: Line) -> list[Printed]:
    *places, name, method = names
    out = [*map(word, places), word(metric(name).axis, name), word(method)]
    for view in VIEWS:
        if view not in line:
            out += [Printed(UNDEFINED, title="not ranked by what it holds equal")] * 2
            continue
        position, row = line[view]
        runs = study.runs_where(row["backbone"], row["target"], [row["method"]])
        rank = of_row(TABLE, position, row, "rank", runs)
        if row["rank_low"] is not None:
            within = of_row(TABLE, position, row, "rank_ci", runs)
            rank = replace(rank, title=within.text)
        out += [rank, of_row(TABLE, position, row, "value", runs)]
    return out


def agreement_table(study: Study) -> Table | None:
    """How far the views rank alike."""
    keys = [
        *place_columns(study),
        Shown("metric", "Metric", words=metric_of()),
        Shown("view_a", "View", words=lambda row: VIEWS[row["view_a"]][0]),
        Shown("view_b", "Other view", words=lambda row: VIEWS[row["view_b"]][0]),
    ]
    shown = [
        *keys,
        Shown("n_methods", "Methods", "ranked in both views"),
        Shown("kendall_tau", "τ", "Kendall's tau-b: 1 the same order, 0 none, -1 reversed"),
        Shown("p", "p", "of no relation between the two orders"),
        Shown("best_a", "First in view", words=lambda row: row["best_a"] or UNDEFINED),
        Shown("best_b", "First in other view", words=lambda row: row["best_b"] or UNDEFINED),
    ]
    return analysis_table(
        study,
        "ranking_agreement",
        "Do the views rank alike?",
        shown,
        rows=study.rows("ranking_agreement"),
        n_keys=len(keys),
    )


__all__ = ["agreement_table", "ranking_table"]
