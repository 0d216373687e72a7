"""Early warning on the page: how good the forecast is."""

from __future__ import annotations

from clipdrift.analysis.questions.early_warning import verdict
from clipdrift.analysis.questions.forecast_trial import EarlyWarning
from clipdrift.report.printed import DERIVED, Printed, Sentence
from clipdrift.report.source import Study
from clipdrift.report.tables import Table, listing

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
