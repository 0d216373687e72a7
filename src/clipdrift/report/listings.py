"""Lists of the analysis as tables, those of the metrics that a reader looks for first."""

from __future__ import annotations

from typing import Any

from clipdrift.analysis.questions.dose import DoseResponse
from clipdrift.analysis.questions.dose_axes import DoseAxis
from clipdrift.analysis.questions.equivalence import Equivalence
from clipdrift.analysis.questions.grid_adequacy import GridAdequacy
from clipdrift.analysis.questions.matched_views import MatchedView
from clipdrift.analysis.questions.mediation import Mediation
from clipdrift.analysis.questions.mixed import Mixed
from clipdrift.analysis.questions.paired import Paired
from clipdrift.analysis.questions.power import Power
from clipdrift.analysis.questions.predictors import Predictor
from clipdrift.analysis.questions.selection import Selection
from clipdrift.analysis.questions.signal_ranks import REFERENCE, SignalRank
from clipdrift.report.metrics import metric
from clipdrift.report.source import R, Study
from clipdrift.report.tables import Table, listing

OVER = {
    "per_lr": "at each learning rate",
    "grid_mean": "mean over the grid of learning rates",
    "both_fit": "mean over the rates at which both methods fit",
    "all_pairs": "every rate and seed as a replicate",
}
NOTES = {
    "grid_mean": "Each seed is one value, its mean over the rates that all seeds used have.",
    "both_fit": "Each seed is one value, its mean over the rates at which neither method underfits "
    "or is damaged.",
    "all_pairs": "Learning rates are no replicates: p is too small, or too large, and there is no "
    "interval. The means over the grid and the model of the whole grid are what to read.",
}
FORMS = (
    "|·| is the size of a drift, its distance from the untouched model; without the bars "
    "it is read with its sign."
)
BAND_PP = 2.0


def main_metrics(study: Study) -> list[str]:
    return [study.accuracy, *study.outcomes, *study.main_drifts]


def paired_table(study: Study, scope: str, *, rest: bool = False) -> Table | None:
    """Paired tests of one scope, of the main metrics or of the rest."""
    main = main_metrics(study)
    rows = [row for row in study.rows(Paired, scope=scope) if (row.metric not in main) == rest]
    return listing(
        study,
        Paired,
        f"Matched runs, {OVER[scope]}" + (": all other metrics" if rest else ""),
        rows,
        table_id=f"paired-{scope.replace('_', '-')}" + ("-all" if rest else ""),
        note=NOTES.get(scope, ""),
    )


def equivalence_table(study: Study) -> Table | None:
    return listing(study, Equivalence, "Equivalence: is the difference inside the margin?")


def _rows_of_main(study: Study, kind: type[R], *more: str) -> list[R]:
    wanted = [*main_metrics(study), *more]
    rows: list[Any] = list(study.rows(kind))
    return [row for row in rows if row.metric in wanted]


def mixed_table(study: Study) -> Table | None:
    """The terms with method in them; the interaction with log LR is what the study asks."""
    rows = [r for r in _rows_of_main(study, Mixed) if r.term is None or "method" in r.term]
    note = "Method × log₁₀ learning rate × target; every term may differ by seed."
    return listing(study, Mixed, "Model of the whole grid", rows, note=note)


def dose_table(study: Study) -> Table | None:
    rows = _rows_of_main(study, DoseResponse, "val_accuracy")
    caption = "Does the metric rise or fall with the learning rate?"
    return listing(study, DoseResponse, caption, rows)


def matched_table(study: Study) -> Table | None:
    return listing(study, MatchedView, "Matched views", _rows_of_main(study, MatchedView))


def dose_axis_table(study: Study) -> Table | None:
    note = (
        "Spread: root mean square of differences in retention between a cell and another method's "
    )
    note += "curve at the same dose, over those at the same rate. Covered: cells whose dose the "
    note += "other curve has; an axis on which few are met says little."
    return listing(study, DoseAxis, "A dose at which methods keep alike?", note=note)


def rank_table(study: Study) -> Table | None:
    """Of each moment and group the first three and weight drift."""
    rows = [
        row for row in study.rows(SignalRank) if (row.rank or 9) <= 3 or row.signal == REFERENCE
    ]
    note = "Runs are ranked within a method on a target, within a rate, or within a cell, where "
    note += "seeds alone differ. Intervals draw cells. All signals: tables/signal_ranks.csv."
    return listing(study, SignalRank, "Signals ranked where something is held", rows, note=note)


def power_table(study: Study) -> Table | None:
    return listing(study, Power, "What this design can detect", _rows_of_main(study, Power))


def grid_table(study: Study) -> Table | None:
    return listing(study, GridAdequacy, "Does the grid hold the best rate inside?")


def predictor_table(study: Study) -> Table | None:
    names = dict.fromkeys(row.reference for row in study.rows(Predictor) if row.reference)
    reference = ", ".join(metric(name).label for name in names)
    note = f"{FORMS} Gaps are to {reference}." if reference else FORMS
    return listing(study, Predictor, "Signals against final retention", note=note)


def selection_table(study: Study) -> Table | None:
    return listing(
        study,
        Selection,
        f"Which run to keep, within {BAND_PP:g} pp of the best validation accuracy",
        study.rows(Selection, band_pp=BAND_PP),
        note=f"{FORMS} Picked is the run that moved least; with the sign, the one that reads "
        "lowest (CKA highest). Bands of other widths are in the file.",
    )


def mediation_table(study: Study) -> Table | None:
    return listing(
        study,
        Mediation,
        "How much of the difference in retention goes along with drift",
        note="A description, not a cause: reads as mediation only if, given log10 learning rate, "
        "nothing unmeasured moves both drift and retention, drift precedes retention, effects are "
        "linear and the method does not change the slope of retention on drift.",
    )
