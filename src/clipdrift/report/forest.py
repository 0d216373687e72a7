"""Forest plots: the effect of each study, and of all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clipdrift.analysis.pooled import Pooled, StudyEffect
from clipdrift.analysis.statistics.intervals import LEVEL
from clipdrift.report.static import Draw, drawn, slug

QUESTIONS = {
    "retention_at_equal_accuracy": "retention at equal accuracy",
    "accuracy_at_best_rates": "accuracy at each one's best rate",
}
COLOUR, FAINT = "#1f77b4", "#667380"
LINE, WIDTH = 0.42, 7.0
"""Inches: of a study, and of the figure."""


def forest_figures(
    effects: Sequence[StudyEffect], pooled: Sequence[Pooled]
) -> Iterator[tuple[str, bytes]]:
    """A forest plot as PNG and PDF for every question and pair of methods that was pooled."""
    figures: list[tuple[str, tuple[float, float], Draw]] = []
    for i, row in enumerate(pooled):
        if row.diff_pp is None:
            continue
        named = (row.question, row.method_a, row.method_b)
        own = [e for e in effects if (e.question, e.method_a, e.method_b) == named and e.weight]
        name = f"forest-{slug(f'{row.question} {row.method_a} {row.method_b}', i)}"
        figures.append((name, (WIDTH, LINE * (len(own) + 3) + 0.8), _forest(row, own)))
    return drawn(figures)


def _forest(row: Pooled, own: Sequence[StudyEffect]) -> Draw:
    from scipy.special import stdtrit

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        lines = []
        for i, one in enumerate(own):
            value, se = one.diff_pp or 0.0, one.se_pp or 0.0
            half = float(stdtrit(max(1, one.n_seeds - 1), (1 + LEVEL) / 2)) * se
            axes.plot([value - half, value + half], [i, i], color=FAINT, lw=1)
            axes.plot([value], [i], "s", color=COLOUR, ms=3 + 9 * (one.weight or 0))
            text = f"{value:+.2f} [{value - half:+.2f}, {value + half:+.2f}]"
            lines.append(f"{one.study} ({one.n_seeds} seeds)\n{text}")
        at, ends = len(own) + 0.5, (row.ci_low, row.ci_high)
        axes.fill(
            [ends[0], row.diff_pp, ends[1], row.diff_pp],
            [at, at - 0.25, at, at + 0.25],
            color=COLOUR,
        )
        lines.append(f"all studies\n{row.diff_pp:+.2f} [{ends[0]:+.2f}, {ends[1]:+.2f}]")
        new = (row.prediction_low, row.prediction_high)
        axes.plot(new, [at + 1, at + 1], color=COLOUR, lw=2, ls=":")
        lines.append(f"a new study\n[{new[0]:+.2f}, {new[1]:+.2f}]")
        axes.axvline(0, color=FAINT, lw=0.8)
        axes.set_yticks([*range(len(own)), at, at + 1], lines)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(at + 1.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{row.method_a} - {row.method_b}, {QUESTIONS[row.question]} (points)")

    return draw
