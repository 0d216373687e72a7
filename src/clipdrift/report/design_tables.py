"""The design as tables: grid adequacy, power, sensitivity to the probe set, reproduction."""

from __future__ import annotations

from collections.abc import Iterator

from clipdrift.report.comparison_tables import AT, LR, METRIC, PAIR, main_metrics
from clipdrift.report.metrics import UNDEFINED, metric, rate_text
from clipdrift.report.source import Row, Study
from clipdrift.report.tables import (
    Shown,
    Table,
    analysis_table,
    name_of,
    place_columns,
)


def grid_table(study: Study) -> Table | None:
    keys = [*place_columns(study), Shown("method", "Method", words=name_of("method"))]
    shown = [
        *keys,
        Shown("n_lrs", "Rates"),
        Shown("lowest_lr", "Lowest"),
        Shown("highest_lr", "Highest"),
        Shown("best_lr", "Best", "by mean validation accuracy"),
        Shown("n_underfit", "Underfitting cells"),
        Shown("n_damaged", "Damaged cells", "past their peak at a lower rate or an earlier epoch"),
        Shown("words", "Remark", words=_remark),
    ]
    caption = "Does the grid hold the best rate inside?"
    rows = study.rows("grid_adequacy")
    return analysis_table(study, "grid_adequacy", caption, shown, rows=rows, n_keys=len(keys))


def _remark(row: Row) -> str:
    parts = []
    if row["edge"]:
        parts.append(f"the best rate is the {row['edge']}: extend the grid")
    if row["underfit_lrs"]:
        rates = ", ".join(rate_text(rate) for rate in row["underfit_lrs"])
        parts.append(f"underfits at {rates}: it keeps what it keeps because it barely trained")
    if row["damaged_lrs"]:
        rates = ", ".join(rate_text(rate) for rate in row["damaged_lrs"])
        parts.append(f"damaged at {rates}: past its peak, it has lost of the target too")
    return "; ".join(parts) or UNDEFINED


def power_table(study: Study) -> Table | None:
    wanted = main_metrics(study)
    rows = [(i, row) for i, row in study.rows("power") if row["metric"] in wanted]
    keys = [*place_columns(study), METRIC, PAIR, AT]
    shown = [
        *keys,
        Shown("n_seeds", "Seeds"),
        Shown("sd_diff", "SD of diff."),
        Shown("detectable_diff", "Detectable", "smallest true difference found in 80 % of studies"),
        Shown("seeds_for_1pp", "Seeds for 1 pp"),
        Shown("seeds_for_2pp", "for 2 pp"),
        Shown("seeds_for_5pp", "for 5 pp"),
        Shown("wilcoxon_floor", "p floor", "the smallest p an exact signed-rank test can reach"),
    ]
    caption = "What this design can detect"
    return analysis_table(study, "power", caption, shown, rows=rows, n_keys=len(keys))


def sensitivity_table(study: Study) -> Table | None:
    keys = [
        Shown("run_id", "Run", words=name_of("run_id")),
        Shown("signal", "Signal", words=lambda row: metric(f"levels.{row['signal']}").axis),
    ]
    shown = [
        *keys,
        Shown("n_images", "Images"),
        Shown("n_subsets", "Subsets"),
        Shown("cv", "CV", "SD / |mean| over balanced subsets of the probe set"),
        Shown("settled_at", "Settles at", "images from which on the mean is within 0.1 %"),
    ]
    caption = "Do drift signals depend on the probe images?"
    rows = study.rows("probe_sensitivity")
    return analysis_table(study, "probe_sensitivity", caption, shown, rows=rows, n_keys=2)


def _within(row: Row) -> str:
    if row["within"] is None:
        return "–" if row["diff"] is None else "cannot tell"
    return "yes" if row["within"] else "no"


def reproduction_table(study: Study) -> Table | None:
    keys = [
        Shown("kind", "What", words=lambda row: row["kind"].replace("_", " ")),
        Shown("target", "Target", words=name_of("target", "all")),
        Shown("method", "Method", words=name_of("method", "all")),
        LR,
        METRIC,
    ]
    shown = [
        *keys,
        Shown("n", "Runs"),
        Shown("ours", "Ours"),
        Shown("theirs", "Published"),
        Shown("diff", "Diff."),
        Shown("tolerance", "Tolerance"),
        Shown("untouched", "Untouched model"),
        Shown("within", "Within", words=_within),
    ]
    rows: Iterator[tuple[int, Row]] = study.rows("reproduction")
    caption = "Against the published figures"
    return analysis_table(study, "reproduction", caption, shown, rows=rows, n_keys=len(keys))


__all__ = ["grid_table", "power_table", "reproduction_table", "sensitivity_table"]
