"""Comparisons of methods as tables: paired tests, equivalence, the model of the grid, views."""

from __future__ import annotations

from clipdrift.report.printed import DERIVED, Printed, Sentence
from clipdrift.report.study import Study
from clipdrift.report.tables import (
    Shown,
    Table,
    analysis_table,
    metric_of,
    name_of,
    place_columns,
)

METRIC = Shown("metric", "Metric", words=metric_of())
LR = Shown("lr", "LR", "learning rate")
PAIR = Shown(
    "method_a",
    "Difference",
    "which method is subtracted from which",
    words=lambda row: f"{row['method_a']} − {row['method_b']}",
)
TESTS = [
    Shown("n_pairs", "Pairs", "matched runs; equal seeds at equal rates"),
    Shown("mean_diff", "Mean diff.", "in the metric's unit; accuracies in percentage points"),
    Shown("ci", "95 % CI", "t interval of the mean difference"),
    Shown("cohen_dz", "dz", "Cohen's dz: mean / SD of the differences"),
    Shown("hedges_gz", "gz", "dz corrected for few pairs (Hedges)"),
    Shown("t", "t"),
    Shown("p_t", "p (t)", "paired t test, two-sided"),
    Shown("p_holm", "p (Holm)", "p (t) corrected over the family of tests"),
    Shown("p_wilcoxon", "p (Wilc.)", "signed-rank test, two-sided"),
    Shown("wilcoxon_floor", "floor", "the smallest p an exact signed-rank test can reach here"),
]


def main_metrics(study: Study) -> list[str]:
    return [study.accuracy, *study.outcomes, *study.main_drifts]


def paired_table(study: Study, scope: str, *, every_metric: bool) -> Table | None:
    """Paired tests at each learning rate, or pooled over them."""
    main = main_metrics(study)
    rows = [
        (i, row)
        for i, row in study.rows("paired", scope=scope)
        if (row["metric"] in main) != every_metric
    ]
    per_lr = scope == "per_lr"
    keys = [*place_columns(study), METRIC, PAIR, *([LR] if per_lr else [])]
    what = "at each learning rate" if per_lr else "pooled over learning rates"
    note = _holm_over(study, scope)
    if not per_lr:
        note.append(" Pooling counts each learning rate as a replicate; see the mixed model.")
    return analysis_table(
        study,
        "paired",
        f"Matched runs, {what}" + (": all other metrics" if every_metric else ""),
        [*keys, *TESTS],
        rows=rows,
        n_keys=len(keys),
        table_id=f"paired-{scope.replace('_', '-')}" + ("-all" if every_metric else ""),
        note=note,
    )


def _holm_over(study: Study, scope: str) -> Sentence:
    """How many tests the correction is over; tables of a part of the metrics share it."""
    tested = [row for _, row in study.rows("paired", scope=scope) if row["p_holm"] is not None]
    runs = study.index.encode(run_id for row in tested for run_id in row["run_ids"])
    count = Printed(str(len(tested)), "", DERIVED, runs)
    return ["Holm over p (t) of all ", count, " tests, those of all metrics."] if tested else []


def equivalence_table(study: Study) -> Table | None:
    keys = [*place_columns(study), METRIC, PAIR, LR]
    shown = [
        *keys,
        Shown("n_pairs", "Pairs"),
        Shown("margin", "Margin", "differences below this count as none"),
        Shown("mean_diff", "Mean diff."),
        Shown("ci", "90 % CI"),
        Shown("p_tost", "p (TOST)", "two one-sided tests"),
        Shown("result", "Result", words=name_of("result")),
    ]
    return analysis_table(
        study,
        "equivalence",
        "Equivalence: is the difference inside the margin?",
        shown,
        rows=study.rows("equivalence"),
        n_keys=len(keys),
    )


def mixed_table(study: Study) -> Table | None:
    """The terms with method in them; the interaction with log LR is what the study asks."""
    wanted = main_metrics(study)
    rows = [
        (i, row)
        for i, row in study.rows("mixed")
        if row["metric"] in wanted and ("method" in str(row["term"]) or row["term"] is None)
    ]
    keys = [METRIC, Shown("term", "Term", words=name_of("term"))]
    shown = [
        *keys,
        Shown("estimate", "Estimate", "per factor 10 of learning rate where lr is in the term"),
        Shown("se", "SE"),
        Shown("ci", "95 % CI"),
        Shown("df", "df", "degrees of freedom of t; at most seeds less one"),
        Shown("p", "p"),
        Shown("model", "Model", words=name_of("model")),
        Shown("model_reason", "Why this model", words=name_of("model_reason", "")),
    ]
    note = "Method × log₁₀ learning rate × target; every term may differ by seed."
    return analysis_table(
        study, "mixed", "Model of the whole grid", shown, rows=rows, n_keys=2, note=note
    )


def dose_table(study: Study) -> Table | None:
    wanted = [*main_metrics(study), "val_accuracy"]
    rows = [(i, r) for i, r in study.rows("dose_response") if r["metric"] in wanted]
    keys = [*place_columns(study), Shown("method", "Method", words=name_of("method")), METRIC]
    shown = [
        *keys,
        Shown("n", "Runs"),
        Shown("n_lrs", "Rates"),
        Shown("spearman_rho", "ρ", "Spearman correlation with log₁₀ learning rate"),
        Shown("ci", "95 % CI", "seeds resampled"),
        Shown("p", "p"),
    ]
    caption = "Does the metric rise or fall with the learning rate?"
    return analysis_table(study, "dose_response", caption, shown, rows=rows, n_keys=len(keys))


def matched_table(study: Study) -> Table | None:
    wanted = main_metrics(study)
    rows = [(i, r) for i, r in study.rows("matched_views") if r["metric"] in wanted]
    view = Shown("view", "Held equal", words=lambda row: str(row["view"])[6:].replace("_", " "))
    keys = [*place_columns(study), view, Shown("at", "At"), METRIC, PAIR]
    shown = [
        *keys,
        Shown("value_a", "First"),
        Shown("value_b", "Second"),
        Shown("diff", "Diff."),
        Shown("ci", "95 % CI", "seeds resampled"),
        Shown("share_defined", "Defined", "share of resamples in which both curves reach here"),
    ]
    caption = "Matched views"
    return analysis_table(study, "matched_views", caption, shown, rows=rows, n_keys=len(keys))


__all__ = [
    "LR",
    "METRIC",
    "PAIR",
    "dose_table",
    "equivalence_table",
    "main_metrics",
    "matched_table",
    "mixed_table",
    "paired_table",
]
