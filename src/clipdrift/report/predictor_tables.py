"""Signals as tables: what foretells retention, which run a signal picks, what lies between."""

from __future__ import annotations

from clipdrift.report.comparison_tables import PAIR
from clipdrift.report.metrics import NBSP, UNDEFINED, metric, rate_text, unbroken
from clipdrift.report.source import Row, Study
from clipdrift.report.tables import (
    Shown,
    Table,
    analysis_table,
    metric_of,
    place_columns,
)

FORMS = (
    "|·| is the size of a drift, its distance from the untouched model; without the bars "
    "it is read with its sign."
)
MOMENTS = {"final": "end", "epoch1": "epoch 1"}


def moment(row: Row) -> str:
    return MOMENTS.get(str(row["when"]), UNDEFINED)


def predictor_table(study: Study) -> Table | None:
    rows = list(study.rows("predictors"))
    keys = [
        Shown("outcome", "Outcome", words=metric_of("outcome")),
        Shown("signal", "Signal", words=metric_of("signal")),
        Shown("when", "Read at", words=moment),
    ]
    shown = [
        *keys,
        Shown("n", "Runs"),
        Shown("spearman_overall", "ρ overall"),
        Shown("ci", "95 % CI", "t over seeds on Fisher's z, one seed left out at a time"),
        Shown("p", "p", "of no correlation, from the same t"),
        Shown("gap", "Gap", "|ρ| less that of the reference signal"),
        Shown("gap_ci", "95 % CI of gap"),
        Shown("within_target_mean_abs", "mean |ρ| in target"),
        Shown("within_group_mean_abs", "mean |ρ| in target × method"),
        Shown("within_group_mean_signed", "with one sign", "negative: groups go against it"),
    ]
    caption = "Signals against final retention"
    names = dict.fromkeys(row["reference"] for _, row in rows if row["reference"])
    reference = ", ".join(metric(name).label for name in names)
    note = f"{FORMS} Gaps are to {reference}." if reference else FORMS
    return analysis_table(study, "predictors", caption, shown, rows=rows, n_keys=3, note=note)


def _picked(row: Row) -> str:
    if not row["run_id"]:
        return UNDEFINED
    return f"{row['method']}{NBSP}{unbroken(rate_text(row['lr']))}"


def selection_table(study: Study, band_pp: float) -> Table | None:
    keys = [
        *place_columns(study),
        Shown("outcome", "Outcome", words=metric_of("outcome")),
        Shown("signal", "Chosen by", words=metric_of("signal")),
        Shown("when", "Read at", words=moment),
    ]
    shown = [
        *keys,
        Shown("n_candidates", "Candidates"),
        Shown(
            "method",
            "Picks",
            words=_picked,
        ),
        Shown("retention_pct", "Retention (%)"),
        Shown("oracle_retention_pct", "Best possible (%)"),
        Shown("random_retention_pct", "At random (%)"),
        Shown("regret_pp", "Regret (pp)"),
    ]
    return analysis_table(
        study,
        "selection",
        f"Which run to keep, within {band_pp:g} pp of the best validation accuracy",
        shown,
        rows=study.rows("selection", band_pp=band_pp),
        n_keys=len(keys),
        note=f"{FORMS} Picked is the run that moved least; with the sign, the one that reads "
        "lowest (CKA highest). Bands of other widths are in the file.",
    )


def mediation_table(study: Study) -> Table | None:
    mediator = Shown("mediator", "Drift", words=metric_of("mediator"))
    keys = [*place_columns(study), Shown("outcome", "Outcome", words=metric_of("outcome"))]
    shown = [
        *keys,
        mediator,
        PAIR,
        Shown("total", "Total"),
        Shown("indirect", "Along drift"),
        Shown("indirect_ci", "95 % CI", "t over seeds, one left out at a time"),
        Shown("direct", "Remaining"),
        Shown("vanishing_rho", "Vanishes at", "error correlation at which the share vanishes"),
    ]
    rows = list(study.rows("mediation"))
    words = sorted({str(row["assumptions"]) for _, row in rows if row["assumptions"]})
    caption = "How much of the difference in retention goes along with drift"
    return analysis_table(
        study,
        "mediation",
        caption,
        shown,
        rows=rows,
        n_keys=len(keys) + 2,
        note=" ".join(words),
    )


__all__ = ["mediation_table", "predictor_table", "selection_table"]
