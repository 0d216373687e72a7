"""What was made after training, on the page: soups and rescaled runs beside their cells."""

from __future__ import annotations

from clipdrift.analysis.questions.after_training import AfterTraining
from clipdrift.analysis.rows import UNDEFINED
from clipdrift.report.metrics import metric
from clipdrift.report.printed import DERIVED, MEAN_SD, Printed, mean_sd_text
from clipdrift.report.source import Study
from clipdrift.report.tables import MAX_ROWS, Column, Table, text_columns, word


def after_table(study: Study) -> Table | None:
    """A line per cell and weights: each metric as made, and of the runs as they were trained."""
    lines: dict[tuple[str, ...], dict[str, AfterTraining]] = {}
    for row in study.rows(AfterTraining):
        key = (row.backbone, row.target, row.method, str(row.learning_rate), row.weights)
        lines.setdefault(key, {})[row.metric] = row
    if not lines:
        return None
    shown = [study.accuracy, *study.outcomes, "drift.weight_drift_rel"]
    shown = [name for name in shown if any(name in line for line in lines.values())]
    several = len(study.backbones) > 1
    texts = ["Backbone"] * several + ["Target", "Method"]
    columns = [*text_columns(*texts), Column("LR")]
    columns += [Column("Weights", "soup: mean of the seeds' weights", numeric=False)]
    columns += [Column("Runs", "runs that the weights come from")]
    for name in shown:
        columns.append(Column(metric(name).axis, "of the weights that were made"))
        columns.append(Column("runs as trained", "mean ± SD over the same seeds"))
    rows = [_line(study, line, shown, several=several) for line in lines.values()]
    n_keys = len(texts) + 2
    note = (
        "A soup is one model and has no SD; its head is the mean of the seeds' heads. Of one "
        "run the movement of its vision tower is rescaled: times a factor (update), by a factor "
        "that grows with depth (LiNeS), without new directions of the weights (intruders), or "
        "until attention is as spread out as before (tempered); projection and head stay. Runs "
        "that began with different random heads have encoders that were trained for different "
        "heads: their soup reaches less, and head_init: text avoids it."
    )
    file = f"tables/{AfterTraining.table}.csv"
    caption = "Weights made after training, beside the runs that they come from"
    return Table(
        AfterTraining.table, caption, columns, rows[:MAX_ROWS], n_keys, (), [note], len(rows), file
    )


def _line(
    study: Study, line: dict[str, AfterTraining], shown: list[str], *, several: bool
) -> list[Printed]:
    row = next(iter(line.values()))
    runs = study.runs_of(row)
    out = [word(row.backbone)] if several else []
    out += [word(row.target), word(row.method), study.printed(row, "learning_rate")]
    out += [word(row.weights), study.printed(row, "n_runs")]
    for name in shown:
        if name not in line:
            out += [Printed(UNDEFINED, title="not read"), Printed(UNDEFINED, title="not read")]
            continue
        row = line[name]
        text = mean_sd_text(name, row.mean, row.sd)
        made = Printed(text, study.where(row, "mean"), DERIVED, runs, row.mean)
        trained = mean_sd_text(name, row.cell_mean, row.cell_sd)
        out += [made, Printed(trained, name, MEAN_SD, runs, row.cell_mean)]
    return out
