"""Two methods at equal learning rate, equal validation accuracy and equal weight movement.

The first is the paired test at each rate, the others are matched views.
"""

from __future__ import annotations

from clipdrift.analysis.statistics.method_curves import WEIGHT_DRIFT
from clipdrift.report.figures.chart import Chart, Trace, axis, layout, level_line, rate_axis, text
from clipdrift.report.metrics import metric, rate_text, significant
from clipdrift.report.source import Place, Row, Study

HEIGHT = 280
EQUAL_LR = "equal_learning_rate"
VIEWS = {
    EQUAL_LR: "Equal learning rate",
    "equal_val_accuracy": "Equal validation accuracy",
    "equal_weight_drift": "Equal weight movement",
}


def matched_pairs_of(study: Study, place: Place) -> list[tuple[str, str]]:
    where = {"backbone": place.backbone, "target": place.target}
    rows = (row for _, row in study.rows("matched_views", **where))
    return list(dict.fromkeys((row["method_a"], row["method_b"]) for row in rows))


def matched_chart(
    study: Study, place: Place, pair: tuple[str, str], view: str, name: str, chart_id: str
) -> Chart | None:
    """Difference of a metric with the band of its intervals, where both methods get to."""
    rows = _rows(study, place, pair, view, name)
    if not rows:
        return None
    rows.sort(key=lambda row: row["at"])
    shown = metric(name)
    runs = study.runs_where(place.backbone, place.target, pair)
    shape, note = level_line(0.0, "no difference")
    y = axis(f"{pair[0]} − {pair[1]} ({shown.difference_unit})".replace(" ()", ""))
    traces = [*_band(rows, shown.scale), _line(rows, runs)]
    title = VIEWS[view]
    what = f"{shown.label}, {pair[0]} minus {pair[1]}"
    return Chart(
        chart_id,
        title,
        f"{what}, on {study.title(place)}: {title}.",
        traces,
        layout(_x_axis(view, rows), y, shapes=[shape], annotations=[note]),
        HEIGHT,
    )


def _rows(study: Study, place: Place, pair: tuple[str, str], view: str, name: str) -> list[Row]:
    """Rows with `view, at, diff, ci_low, ci_high`, those of paired tests among them."""
    where = {"backbone": place.backbone, "target": place.target, "metric": name}
    where |= {"method_a": pair[0], "method_b": pair[1]}
    if view == EQUAL_LR:
        tests = study.rows("paired", **where, scope="per_lr")
        rows = [
            {**row, "view": view, "at": row["lr"], "diff": row["mean_diff"]} for _, row in tests
        ]
    else:
        rows = [row for _, row in study.rows("matched_views", **where, view=view)]
    return [row for row in rows if row["diff"] is not None]


def _x_axis(view: str, rows: list[Row]) -> dict[str, object]:
    if view == EQUAL_LR:
        return rate_axis([row["at"] for row in rows])
    if view == "equal_val_accuracy":
        return axis("Validation accuracy (%)")
    title = f"{metric(WEIGHT_DRIFT).label} ({metric(WEIGHT_DRIFT).unit}, log scale)"
    return axis(title, type="log", nticks=4, tickangle=0)


def _at(row: Row) -> float:
    held = {"equal_val_accuracy": "val_accuracy", "equal_weight_drift": WEIGHT_DRIFT}
    scale = metric(held[row["view"]]).scale if row["view"] in held else 1.0
    return float(row["at"]) * scale


def _band(rows: list[Row], scale: float) -> list[Trace]:
    known = [row for row in rows if row["ci_low"] is not None]
    if len(known) < 2:
        return []
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [_at(row) for row in [*known, *reversed(known)]],
            "y": [row["ci_high"] * scale for row in known]
            + [row["ci_low"] * scale for row in reversed(known)],
            "fill": "toself",
            "fillcolor": "@m3/0.18",
            "line": {"width": 0},
            "hoverinfo": "skip",
            "meta": {"part": "band"},
        }
    ]


def _line(rows: list[Row], runs: str) -> Trace:
    scale = metric(rows[0]["metric"]).scale
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [_at(row) for row in rows],
        "y": [row["diff"] * scale for row in rows],
        "line": {"color": "@m3", "width": 2},
        "marker": {"color": "@m3", "size": 7},
        "customdata": [[runs, _hover(row)] for row in rows],
        "hovertemplate": "%{customdata[1]}<extra></extra>",
        "meta": {"part": "matched_view"},
    }


def _hover(row: Row) -> str:
    shown = metric(row["metric"])
    at = rate_text(row["at"]) if row["view"] == EQUAL_LR else significant(_at(row))
    sides = [
        f"{text(row[f'method_{side}'])}: {shown.number(row[f'value_{side}'])} {text(shown.unit)}"
        for side in "ab"
        if f"value_{side}" in row
    ]
    found = f"difference {shown.number(row['diff'], signed=True)}"
    if row["ci_low"] is not None:
        ends = (shown.number(row[end], signed=True) for end in ("ci_low", "ci_high"))
        found += " (95 % interval {} to {})".format(*ends)
    return "<br>".join([f"at {at}", *sides, found])


__all__ = ["VIEWS", "matched_chart", "matched_pairs_of"]
