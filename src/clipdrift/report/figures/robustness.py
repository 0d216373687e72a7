"""Accuracy on corrupted test parts: corruption x learning rate, against the clean test part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipdrift.analysis.questions.cell_metrics import CellMetric
from clipdrift.analysis.rows import rate_text
from clipdrift.analysis.statistics.extras import Corrupted, corruptions
from clipdrift.report.digits import fixed
from clipdrift.report.figures.chart import Chart, Trace, axis, heatmap, hovering, layout, meta, text
from clipdrift.report.metrics import metric
from clipdrift.report.printed import mean_sd_text
from clipdrift.report.source import CellId, Place, Study

ROW_HEIGHT = 24
Of = tuple[CellId, Mapping[str, CellMetric]]
Cells = Sequence[Of]


def robustness_charts(study: Study) -> list[Chart]:
    """One heatmap per target and method; colour is the change against the clean test part."""
    kinds = corruptions(study.metrics)
    reach = _reach(study, kinds)
    if reach is None:
        return []
    charts = []
    for i, place in enumerate(study.places):
        for j, method in enumerate(study.looks):
            cells = sorted(
                (
                    (cell, study.cells[cell])
                    for cell in study.cells_of(place)
                    if cell.method == method and _mean(study, cell, study.accuracy) is not None
                ),
                key=lambda item: item[0].learning_rate,
            )
            if any(_change(study, cell, kind) is not None for cell, _ in cells for kind in kinds):
                charts.append(_chart(study, place, method, cells, kinds, reach, f"robust-{i}-{j}"))
    return charts


def _chart(
    study: Study,
    place: Place,
    method: str,
    cells: Cells,
    kinds: Sequence[Corrupted],
    reach: float,
    chart_id: str,
) -> Chart:
    rates = [rate_text(cell.learning_rate) for cell, _ in cells]
    changes = [[_change(study, cell, kind) for cell, _ in cells] for kind in kinds]
    trace: Trace = {
        **heatmap(rates, [text(kind.label) for kind in kinds], changes, -reach, reach),
        "text": [
            [metric(kind.name).number(_mean(study, cell, kind.name)) for cell, _ in cells]
            for kind in kinds
        ],
        "texttemplate": "%{text}",
        "textfont": {"size": 10},
        **hovering([[_hover(study, item, kind) for item in cells] for kind in kinds]),
        "hoverongaps": False,
        "meta": meta("change", study.accuracy, axis="z", method=method),
    }
    x = axis("Learning rate", type="category", showgrid=False, ticklen=0)
    y = axis("", type="category", showgrid=False, ticklen=0, autorange="reversed")
    title = f"{study.title(place)}: {method}"
    words = f"{title}. Accuracy in percent on {len(kinds)} corrupted test parts by learning rate."
    height = 90 + ROW_HEIGHT * len(kinds)
    return Chart(chart_id, title, words, [trace], layout(x, y), height)


def _mean(study: Study, cell: CellId, name: str) -> float | None:
    row = study.known(cell, name)
    return None if row is None else row.mean


def _change(study: Study, cell: CellId, kind: Corrupted) -> float | None:
    """Corrupted less clean accuracy, in percentage points."""
    clean, found = (_mean(study, cell, name) for name in (study.accuracy, kind.name))
    return None if clean is None or found is None else 100 * (found - clean)


def _reach(study: Study, kinds: Sequence[Corrupted]) -> float | None:
    """The largest change of the study, so that all panels share one scale."""
    changes = [_change(study, cell, kind) for cell in study.cells for kind in kinds]
    defined = [abs(change) for change in changes if change is not None]
    return (max(defined) or 1.0) if defined else None


def _hover(
    study: Study, item: tuple[CellId, Mapping[str, CellMetric]], kind: Corrupted
) -> list[Any]:
    cell, found = item
    row, change = found.get(kind.name), _change(study, cell, kind)
    if row is None or change is None:
        return ["", "undefined"]
    value = mean_sd_text(kind.name, row.mean, row.sd)
    head = f"<b>{text(cell.method)}</b> at {rate_text(cell.learning_rate)}, {text(kind.label)}"
    label = f"{head}<br>{value} %, {fixed(change, 1, signed=True)} pp against clean"
    values = [study.accuracy, kind.name]
    return [study.index.encode(row.run_ids), f"{label}<br>{row.n} runs", values]
