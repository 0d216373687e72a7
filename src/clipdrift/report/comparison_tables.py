"""Comparisons of methods as tables: paired tests, equivalence, the model of the grid, views."""

from __future__ import annotations

from clipdrift.report.metrics import UNDEFINED, rate_text
from clipdrift.report.source import Row, Study
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
OVER = {
    "per_lr": "at each learning rate",
    "grid_mean": "mean over the grid of learning rates",
    "both_fit": "mean over the rates at which both methods fit",
    "all_pairs": "every rate and seed as a replicate",
}
IMAGES = Shown(
    "n_images",
    "Images",
    "read by both methods and drawn as seeds are; without a number seeds alone are drawn",
)
TESTS = [
    Shown("n_pairs", "Pairs", "matched runs; equal seeds at equal rates"),
    Shown("n_seeds", "Seeds", "of the pairs; they are the sample"),
    IMAGES,
    Shown("mean_diff", "Mean diff.", "in the metric's unit; accuracies in percentage points"),
    Shown("ci", "95 % CI", "t interval of the mean difference, over seeds and images"),
    Shown("cohen_dz", "dz", "Cohen's dz: mean / SD of the differences"),
    Shown("hedges_gz", "gz", "dz corrected for few pairs (Hedges)"),
    Shown("t", "t", "mean difference over its standard error"),
    Shown(
        "p_t",
        "p (t)",
        "paired t test, two-sided, uncorrected; below 0.05 where the interval leaves out 0",
    ),
    Shown("p_holm", "p (Holm)", "p (t) corrected over the family of tests"),
    Shown("p_wilcoxon", "p (Wilc.)", "signed-rank test, two-sided, uncorrected"),
    Shown("wilcoxon_floor", "floor", "the smallest p an exact signed-rank test can reach here"),
    Shown("family", "Family", "what p (Holm) is corrected over", words=name_of("family")),
    Shown("reason", "Remark", words=name_of("reason", "")),
]
NOTES = {
    "grid_mean": "Each seed is one value, its mean over the rates that all seeds used have.",
    "both_fit": "Each seed is one value, its mean over the rates at which neither method underfits "
    "or is damaged.",
    "all_pairs": "Learning rates are no replicates: p is too small, or too large, and there is no "
    "interval. The means over the grid and the model of the whole grid are what to read.",
}


def main_metrics(study: Study) -> list[str]:
    return [study.accuracy, *study.outcomes, *study.main_drifts]


def paired_table(study: Study, scope: str, *, every_metric: bool) -> Table | None:
    """Paired tests of one scope, of the main metrics or of all others."""
    main = main_metrics(study)
    rows = [
        (i, row)
        for i, row in study.rows("paired", scope=scope)
        if (row["metric"] in main) != every_metric
    ]
    rates = LR if scope == "per_lr" else Shown("lrs", "LRs", "learning rates", words=_rates)
    keys = [*place_columns(study), METRIC, PAIR, rates]
    return analysis_table(
        study,
        "paired",
        f"Matched runs, {OVER[scope]}" + (": all other metrics" if every_metric else ""),
        [*keys, *TESTS],
        rows=rows,
        n_keys=len(keys),
        table_id=f"paired-{scope.replace('_', '-')}" + ("-all" if every_metric else ""),
        note=NOTES.get(scope, ""),
    )


def _rates(row: Row) -> str:
    return ", ".join(map(rate_text, row["lrs"])) or UNDEFINED


def _over_rates(row: Row) -> str:
    """The rate of a test, or over which rates it is."""
    words = {"grid_mean": "grid", "both_fit": "where both fit"}
    return words.get(row["scope"]) or rate_text(row["lr"])


def equivalence_table(study: Study) -> Table | None:
    keys = [*place_columns(study), METRIC, PAIR, AT]
    shown = [
        *keys,
        Shown("n_seeds", "Seeds"),
        IMAGES,
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


AT = Shown("lr", "LR", "learning rate, or what rates the mean is over", words=_over_rates)


def dose_table(study: Study) -> Table | None:
    wanted = [*main_metrics(study), "val_accuracy"]
    rows = [(i, r) for i, r in study.rows("dose_response") if r["metric"] in wanted]
    keys = [*place_columns(study), Shown("method", "Method", words=name_of("method")), METRIC]
    shown = [
        *keys,
        Shown("n", "Runs"),
        Shown("n_lrs", "Rates"),
        Shown("n_seeds", "Seeds"),
        Shown("spearman_rho", "ρ", "Spearman correlation with learning rate in a seed; mean"),
        Shown("ci", "95 % CI", "t interval over seeds"),
        Shown("p", "p", "t test over seeds"),
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
        Shown(
            "ci", "95 % CI", "t over seeds, one left out at a time, and images where they are known"
        ),
    ]
    caption = "Matched views"
    return analysis_table(study, "matched_views", caption, shown, rows=rows, n_keys=len(keys))


__all__ = [
    "AT",
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
