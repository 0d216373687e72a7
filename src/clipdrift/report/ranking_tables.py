"""Rankings of many methods on the page: one line per method, one pair of columns per view."""

from __future__ import annotations

from dataclasses import replace

from clipdrift.analysis.questions.ranking import Ranked
from clipdrift.analysis.rows import UNDEFINED
from clipdrift.report.metrics import metric
from clipdrift.report.printed import VIEWS, Printed, field_text
from clipdrift.report.source import Study
from clipdrift.report.tables import MAX_ROWS, Column, Table, text_columns, word

TITLES = {
    "equal_learning_rate": "mean over the learning rates that all methods share",
    "own_best_rate": "at the method's best validation accuracy",
    "equal_val_accuracy": "at the validation accuracy under which a cell underfits",
    "equal_weight_drift": "where the weights have moved as far as the median method's",
}
NOTE = (
    "Rank 1 is the highest value; in a rank's tip the ranks that paired t tests against the other "
    "methods leave open. A method whose curve does not reach what is held equal has no rank there; "
    "why is in its tip. tables/ranking.csv has the learning rate at which each gets there."
)
Line = dict[str, Ranked]


def ranking_table(study: Study) -> Table | None:
    """A line per target, metric and method; None for fewer than three matched methods."""
    lines: dict[tuple[str, ...], Line] = {}
    for row in study.rows(Ranked):
        key = (row.backbone, row.target, row.metric, row.method)
        lines.setdefault(key, {})[row.view] = row
    if not lines:
        return None
    several = len(study.backbones) > 1
    texts = ["Backbone"] * several + ["Target", "Metric", "Method"]
    columns = text_columns(*texts)
    for view, title in TITLES.items():
        label = VIEWS[view]
        columns += [Column(f"Rank, {label}", title), Column(f"Value, {label}", title)]
    rows = [_line(study, key[not several :], line) for key, line in lines.items()]
    file = f"tables/{Ranked.table}.csv"
    caption = "Methods ranked, by what is held equal between them"
    shown = rows[:MAX_ROWS]
    return Table(Ranked.table, caption, columns, shown, len(texts), (), [NOTE], len(rows), file)


def _line(study: Study, names: tuple[str, ...], line: Line) -> list[Printed]:
    *places, name, method = names
    out = [*map(word, places), word(metric(name).axis, name), word(method)]
    for view in TITLES:
        if view not in line:
            out += [Printed(UNDEFINED, title="not ranked by what it holds equal")] * 2
            continue
        row = line[view]
        runs = study.runs_where(row.backbone, row.target, [row.method])
        rank = study.printed(row, "rank", runs=runs)
        if row.rank_low is not None:
            rank = replace(rank, title=field_text(row, "rank_low"))
        out += [rank, study.printed(row, "value", runs=runs)]
    return out
