"""Which signal foretells retention: |rho| and its interval, at the end dark, epoch 1 light."""

from __future__ import annotations

import math

from clipdrift.analysis.questions.predictors import Predictor
from clipdrift.analysis.rows import UNDEFINED
from clipdrift.analysis.statistics.columns import is_size
from clipdrift.report.figures.chart import Chart, Trace, axis, hovering, layout, text
from clipdrift.report.metrics import metric
from clipdrift.report.printed import field_text
from clipdrift.report.source import Study

ROW_HEIGHT = 26
MAX_SIGNALS = 28
MOMENTS = (("final", "@m0", "circle", 9, -0.14), ("epoch1", "@m5", "diamond", 8, 0.14))
NAMES = {"final": "at the end", "epoch1": "after epoch 1"}


def predictor_chart(study: Study, backbone: str, outcome: str, chart_id: str) -> Chart | None:
    """|Spearman rho| of every signal with the final outcome; None where none is defined."""
    found = study.rows(Predictor, backbone=backbone, outcome=outcome)
    rows = once([row for row in found if row.spearman_overall is not None])
    if not rows:
        return None
    order = signal_order(rows)[:MAX_SIGNALS]
    runs = study.runs_where(backbone, matched=True)
    traces = [_moment(rows, order, runs, *moment) for moment in MOMENTS]
    y = axis(
        "",
        tickvals=list(range(len(order))),
        ticktext=[text(metric(name).label) for name in order],
        range=[len(order) - 0.4, -0.6],
        ticklen=0,
    )
    what = "what is gone" if outcome.endswith("gone_pp") else "final retention"
    x = axis(f"|Spearman ρ| with {what}", range=[-0.02, 1.04], dtick=0.25)
    shape = layout(x, y, margin={"l": 150, "r": 14, "t": 10, "b": 46})
    title = metric(outcome).label + (f" · {backbone}" if len(study.backbones) > 1 else "")
    intervals = ", 95 % intervals" if any(row.ci_low is not None for row in rows) else ""
    words = f"Absolute rank correlation of {len(order)} signals with {title}{intervals}."
    height = 80 + ROW_HEIGHT * len(order)
    return Chart(chart_id, title, words, [t for t in traces if t["x"]], shape, height)


def once(rows: list[Predictor]) -> list[Predictor]:
    """Rows less the sizes of signals that never change side: they rank the runs as the signals do.

    The tables hold both forms of every drift.
    """
    known = {(row.signal, row.when): _size(row) for row in rows}
    alike = {
        name
        for name in (row.signal for row in rows if is_size(row.signal))
        if all(
            math.isclose(rho, known.get((name[1:-1], when), math.nan), abs_tol=1e-9)
            for (signal, when), rho in known.items()
            if signal == name
        )
    }
    return [row for row in rows if row.signal not in alike]


def signal_order(rows: list[Predictor]) -> list[str]:
    """Signals by falling |rho| at the end, those read only after epoch 1 last."""
    final = {row.signal: _size(row) for row in rows if row.when == "final"}
    early = {row.signal: _size(row) for row in rows if row.when == "epoch1"}
    names = dict.fromkeys([*final, *early])
    return sorted(
        names, key=lambda name: (name not in final, -final.get(name, early.get(name, 0.0)), name)
    )


def _moment(
    rows: list[Predictor],
    order: list[str],
    runs: str,
    when: str,
    colour: str,
    symbol: str,
    size: int,
    shift: float,
) -> Trace:
    own = [row for row in rows if row.when == when and row.signal in order]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": NAMES[when],
        "x": [_size(row) for row in own],
        "y": [order.index(row.signal) + shift for row in own],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [_reach(row, outwards=True) for row in own],
            "arrayminus": [_reach(row, outwards=False) for row in own],
            "thickness": 1.5,
            "width": 0,
            "color": f"{colour}/0.7",
        },
        "marker": {"color": colour, "symbol": symbol, "size": size},
        **hovering([[runs, _hover(row)] for row in own]),
        "meta": {"part": when},
    }


def _size(row: Predictor) -> float:
    return abs(row.spearman_overall or 0.0)


def _reach(row: Predictor, *, outwards: bool) -> float | None:
    """From |rho| to an end of the interval; inwards no further than 0, where rho changes sign."""
    rho = row.spearman_overall or 0.0
    end = row.ci_high if outwards == (rho >= 0) else row.ci_low
    if end is None:
        return None
    reach = abs(end - rho)
    return reach if outwards else min(reach, abs(rho))


def _hover(row: Predictor) -> str:
    interval = field_text(row, "ci_low")
    interval = "no interval" if interval == UNDEFINED else f"95 % interval {interval}"
    name = text(metric(row.signal).label)
    where = f"{row.n} runs, {row.n_seeds} seeds"
    head = f"<b>{name}</b>, {NAMES[row.when]}"
    return f"{head}<br>ρ {field_text(row, 'spearman_overall')}, {interval}<br>{where}"
