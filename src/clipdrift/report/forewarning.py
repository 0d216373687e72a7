"""Early warning on the page: how good the forecast is, what it would save, what it has stopped."""

from __future__ import annotations

from typing import Any

from clipdrift.analysis.questions.early_warning import verdict
from clipdrift.analysis.questions.forecast_trial import EarlyWarning
from clipdrift.analysis.rows import UNDEFINED
from clipdrift.records import RunRecord
from clipdrift.report.digits import fixed
from clipdrift.report.printed import DERIVED, Printed, Sentence
from clipdrift.report.source import Study
from clipdrift.report.tables import MAX_ROWS, Column, Table, listing, run_words, text_columns, word

ONE_SEED = "One seed: how sure the errors of the forecast are, beside those of its rivals, is open."
JUDGED = (
    *("against_mean", "against_epoch_retention", "against_lower_rate"),
    *("coverage", "median_width"),
)
"""What one seed does not tell."""


def forewarning(study: Study) -> list[Sentence]:
    """Whether the forecast is worth anything, in words; nothing where there is none."""
    out: list[Sentence] = []
    for backbone in study.backbones:
        rows = study.rows(EarlyWarning, backbone=backbone)
        if not rows:
            continue
        runs = study.runs_of(rows[0])
        of = f"{backbone}: " if len(study.backbones) > 1 else ""
        words = verdict(rows) if study.several_seeds else ONE_SEED
        out.append([of, Printed(words, "", DERIVED, runs)])
        for row in rows:
            if row.reason:
                why = Printed(row.reason, "", DERIVED, runs)
                out.append([f"{of}Left out by {row.split}: ", why, "."])
    return out


def validation_table(study: Study) -> Table | None:
    """Errors and coverage on runs that the forecast has not seen."""
    rows = [row for row in study.rows(EarlyWarning) if row.n]
    without = () if study.several_seeds else JUDGED
    caption = "The forecast on runs it has not seen"
    return listing(study, EarlyWarning, caption, rows, without=without)


def stopped_table(study: Study) -> Table | None:
    """The runs that were ended by a forecast, with what it said."""
    stopped = [record for record in study.listed if record.stopped_early is not None]
    if not stopped:
        return None
    texts = ("Run", "Target", "Method")
    columns = [
        *text_columns(*texts),
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
    file = "runs/*/record.json"
    return Table(
        "stopped", "Runs that were stopped early", columns, rows, 1, (), note, len(stopped), file
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
