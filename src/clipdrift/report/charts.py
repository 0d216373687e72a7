"""Which figures the page shows, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from clipdrift.report.figures.chart import Chart
from clipdrift.report.figures.dose import PANEL_HEIGHT, dose_panel
from clipdrift.report.figures.history import history_charts, history_metrics
from clipdrift.report.figures.interpolation import interpolation_chart
from clipdrift.report.figures.layers import heatmap_chart, panels, profile_chart, scales
from clipdrift.report.figures.matched import VIEWS, matched_chart, matched_pairs_of
from clipdrift.report.figures.plane import plane_chart
from clipdrift.report.figures.predictors import predictor_chart
from clipdrift.report.figures.robustness import robustness_charts
from clipdrift.report.metrics import metric
from clipdrift.report.source import Place, Study

MAX_DOSE_TRANSFERS = 6
Charts = dict[str, Any]
PlaneChart = Callable[[Study, Place, str, str], Chart | None]


def charts(study: Study) -> Charts:
    """Name of a part of the page -> its figures, or (heading, figures) for each of its groups."""
    ranges = scales(study)
    layers = panels(study)
    return {
        "planes": _planes(study, plane_chart, "plane"),
        "ways": _planes(study, interpolation_chart, "way"),
        "dose": [(study.title(p), _dose(study, p, i)) for i, p in enumerate(study.places)],
        "heat": [heatmap_chart(study, p, f"heat-{i}", ranges) for i, p in enumerate(layers)],
        "profiles": [profile_chart(study, p, f"profile-{i}", ranges) for i, p in enumerate(layers)],
        "history": [
            chart
            for i, place in enumerate(study.places)
            for chart in (history_charts(study, place, f"history-{i}"))
        ]
        if history_metrics(study)
        else [],
        "predictors": _predictors(study),
        "robustness": robustness_charts(study),
        "matched": _matched(study),
    }


def _planes(study: Study, draw: PlaneChart, prefix: str) -> list[Chart]:
    pairs = [(place, outcome) for place in study.places for outcome in study.outcomes]
    found = (draw(study, *pair, f"{prefix}-{i}") for i, pair in enumerate(pairs))
    return [chart for chart in found if chart is not None]


def _dose(study: Study, place: Place, number: int) -> list[Chart]:
    names = [study.accuracy, *study.main_drifts[:1], *study.outcomes[:MAX_DOSE_TRANSFERS]]
    runs = study.runs[
        (study.runs["backbone"] == place.backbone) & (study.runs["target"] == place.target)
    ]
    marks = {(c.method, c.lr): study.mark(c) for c in study.cells_of(place)}
    charts = []
    for i, name in enumerate(names):
        if not runs[name].notna().any():
            continue
        traces, shape = dose_panel(runs, name, study.looks, marks, study.index)
        words = f"{metric(name).axis} against learning rate on {study.title(place)}."
        charts.append(
            Chart(f"dose-{number}-{i}", metric(name).label, words, traces, shape, PANEL_HEIGHT)
        )
    return charts


def _predictors(study: Study) -> list[Chart]:
    pairs = [(backbone, outcome) for backbone in study.backbones for outcome in study.outcomes]
    found = (predictor_chart(study, *pair, f"predictor-{i}") for i, pair in enumerate(pairs))
    return [chart for chart in found if chart is not None]


def _matched(study: Study) -> list[tuple[str, list[Chart]]]:
    out = []
    for i, place in enumerate(study.places):
        for j, pair in enumerate(matched_pairs_of(study, place)):
            for k, name in enumerate(study.outcomes):
                found = [
                    matched_chart(study, place, pair, view, name, f"matched-{i}-{j}-{k}-{v}")
                    for v, view in enumerate(VIEWS)
                ]
                charts = [chart for chart in found if chart is not None]
                title = f"{study.title(place)}: {metric(name).label}, {pair[0]} − {pair[1]}"
                if charts:
                    out.append((title, charts))
    return out


def all_charts(parts: Charts) -> Iterator[Chart]:
    """Every figure of the page."""
    for found in parts.values():
        for item in found:
            if isinstance(item, Chart):
                yield item
            else:
                yield from item[1]


__all__ = ["Charts", "all_charts", "charts"]
