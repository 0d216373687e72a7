"""Early warning on the page: how good the forecast is, what it would save, what it has stopped."""

from __future__ import annotations

from typing import Any

from clipdrift.analysis.questions.early_warning import verdict
from clipdrift.records import RunRecord
from clipdrift.report.metrics import UNDEFINED, fixed
from clipdrift.report.printed import DERIVED, Printed, Sentence
from clipdrift.report.source import Study
from clipdrift.report.tables import (
    MAX_ROWS,
    Column,
    Shown,
    Table,
    analysis_table,
    name_of,
    run_words,
    word,
)

LEFT_OUT = Shown("split", "Left out", "what the forecast knew nothing of", words=name_of("split"))

ONE_SEED = "One seed: how sure the errors of the forecast are, beside those of its rivals, is open."
JUDGED = ("against_mean", "against_epoch_retention", "against_lower_rate", "coverage")


def forewarning(study: Study) -> list[Sentence]:
    """Whether the forecast is worth anything, in words; nothing where there is none."""
    out: list[Sentence] = []
    for backbone in study.backbones:
        rows = [row for _, row in study.rows("early_warning", backbone=backbone)]
        if not rows:
            continue
        runs = study.runs_of(rows[0])
        of = f"{backbone}: " if len(study.backbones) > 1 else ""
        words = verdict(rows, rows[0]["level"]) if study.several_seeds else ONE_SEED
        out.append([of, Printed(words, "", DERIVED, runs)])
        for row in rows:
            if row["reason"]:
                why = Printed(row["reason"], "", DERIVED, runs)
                out.append([f"{of}Left out by {row['split']}: ", why, "."])
    return out


def _keys(study: Study) -> list[Shown]:
    backbone = Shown("backbone", "Backbone", words=name_of("backbone"))
    return [backbone, LEFT_OUT] if len(study.backbones) > 1 else [LEFT_OUT]


def validation_table(study: Study) -> Table | None:
    """Errors and coverage on runs that the forecast has not seen."""
    keys = _keys(study)
    shown = [
        *keys,
        Shown("n", "Runs"),
        Shown("mae", "Error (pp)", "mean absolute error of final retention"),
        Shown("mae_mean", "of the mean", "had the mean been foretold"),
        Shown("against_mean", "Forecast is", words=name_of("against_mean")),
        Shown(
            "mae_epoch_retention", "of retention then", "had retention stayed as it was read then"
        ),
        Shown("against_epoch_retention", "Forecast is", words=name_of("against_epoch_retention")),
        Shown("mae_there", "Error there (pp)", "on runs with a cell at a lower rate"),
        Shown("mae_lower_rate", "of next lower rate", "had the lower rate's mean been foretold"),
        Shown("against_lower_rate", "Forecast is", words=name_of("against_lower_rate")),
        Shown("spearman", "ρ", "rank correlation, pooled"),
        Shown("spearman_within", "within", "its mean within target x method"),
        Shown("coverage", "Covered", "share of runs inside their interval"),
        Shown("median_width", "Width (pp)", "median width of the interval"),
    ]
    if not study.several_seeds:
        shown = [c for c in shown if c.key not in (*JUDGED, "median_width")]
    rows = [(i, row) for i, row in study.rows("early_warning") if row["n"]]
    caption = "The forecast on runs it has not seen"
    return analysis_table(study, "early_warning", caption, shown, rows=rows, n_keys=len(keys))


def saving_table(study: Study) -> Table | None:
    """What ending runs below a limit would have done."""
    keys = [*_keys(study), Shown("limit_pct", "Limit (%)")]
    shown = [
        *keys,
        Shown("n", "Runs"),
        Shown("n_below", "Below it", "runs that ended below the limit"),
        Shown("n_stopped", "Stopped", "runs whose upper bound lies below it"),
        Shown("n_right", "rightly"),
        Shown("n_wrong", "wrongly", "they kept the limit or more"),
        Shown("seconds_saved", "Saved (s)", "training time"),
        Shown("seconds_saved_pct", "Saved (%)", "of the training time of these runs"),
        Shown("steps_saved_pct", "Steps (%)", "of the training steps of these runs"),
    ]
    caption = "Had runs ended whose upper bound is below a limit"
    rows = study.rows("early_stopping")
    return analysis_table(study, "early_stopping", caption, shown, rows=rows, n_keys=len(keys))


def stopped_table(study: Study) -> Table | None:
    """The runs that were ended by a forecast, with what it said."""
    stopped = [record for record in study.listed if record.stopped_early is not None]
    if not stopped:
        return None
    texts = ("Run", "Target", "Method")
    columns = [
        *(Column(name, numeric=False) for name in texts),
        Column("LR"),
        Column("Seed"),
        Column("After epoch", "the last one that was trained"),
        Column("Forecast (%)", "final retention on the transfer dataset where it is least"),
        Column("Interval (%)"),
        Column("Limit (%)"),
        Column("Learned from", "runs that the forecast was learned from"),
    ]
    rows = [_line(study, record) for record in stopped[:MAX_ROWS]]
    note: Sentence = ["In no mean and no test: what is left of their cells is flattered."]
    omitted = max(0, len(stopped) - MAX_ROWS)
    file = "runs/*/record.json"
    return Table(
        "stopped", "Runs that were stopped early", columns, rows, 1, (), note, omitted, file
    )


def _line(study: Study, record: RunRecord) -> list[Printed]:
    why: Any = record.stopped_early
    runs = study.index.encode([record.run_id])

    def said(text: str, sort: float) -> Printed:
        return Printed(text, "", DERIVED, runs, sort)

    learned = why.learned_from.get("n_runs")
    return [
        *run_words(record),
        said(str(why.epoch), why.epoch),
        said(fixed(why.forecast_pct, 1), why.forecast_pct),
        said(f"{fixed(why.low_pct, 1)} to {fixed(why.high_pct, 1)}", why.high_pct),
        said(fixed(why.limit_pct, 1), why.limit_pct),
        word(UNDEFINED if learned is None else str(learned)),
    ]


__all__ = ["forewarning", "saving_table", "stopped_table", "validation_table"]
