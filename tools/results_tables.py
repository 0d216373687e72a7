"""The tables of a results page, as Markdown: `results_page.py` puts them into the page.

Everything is read from the analysis; the words around the tables are written by people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from scipy.stats import spearmanr

Row = dict[str, Any]
FIT_SIGNS = {"underfits": " *", "damaged": " **"}
VIEWS = ("equal_learning_rate", "own_best_rate", "equal_val_accuracy", "equal_weight_drift")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def plus_minus(mean: float | None, sd: float | None, scale: float = 1.0) -> str:
    if mean is None:
        return "–"
    return f"{scale * mean:.1f}" + ("" if sd is None else f" ± {scale * sd:.1f}")


def spread(row: Row | None, scale: float = 1.0) -> str:
    if row is None:
        return "–"
    return plus_minus(row["mean"], row["sd"], scale) + FIT_SIGNS.get(row.get("fit"), "")


def number(value: float | None, form: str = "{:.1f}") -> str:
    return "–" if value is None else form.format(value)


def pick(rows: Iterable[Row], **where: Any) -> Iterator[Row]:
    return (row for row in rows if all(row[key] == value for key, value in where.items()))


def outcomes_of(analysis: Row) -> list[str]:
    """What is kept, by transfer dataset."""
    names = {row["metric"] for row in analysis["cells"]}
    return sorted(n for n in names if n.startswith("transfer.") and n.endswith(".retention_pct"))


def cells(analysis: Row, target: str) -> str:
    """Mean and SD of test accuracy and retention of every cell."""
    outcomes = outcomes_of(analysis)
    rows: dict[tuple[str, float], dict[str, Row]] = {}
    for row in pick(analysis["cells"], target=target):
        rows.setdefault((row["method"], row["learning_rate"]), {})[row["metric"]] = row
    rates = sorted({lr for _, lr in rows})
    lines = []
    for method in dict.fromkeys(method for method, _ in rows):
        own = [rows.get((method, lr), {}) for lr in rates]
        texts = [
            f"{spread(found.get('test_accuracy'), 100)}; "
            + "; ".join(spread(found.get(name)).rstrip(" *") for name in outcomes)
            if found
            else "–"
            for found in own
        ]
        lines.append([method, *texts])
    return table(["method", *(f"{lr:g}" for lr in rates)], lines)


def ranks(analysis: Row, target: str, outcome: str, reference: str) -> str:
    """Every method in the four views: value and rank, and the test against the reference."""
    found: dict[str, dict[str, Row]] = {}
    for row in pick(analysis["ranking"], target=target, metric=outcome):
        found.setdefault(row["method"], {})[row["view"]] = row
    accuracy = {
        row["method"]: row
        for row in pick(analysis["operating_points"], target=target, metric="test_accuracy")
    }
    lines = []
    for method, views in found.items():
        best = accuracy[method]
        line = [method, f"{best['learning_rate']:g}", spread(best, 100)]
        for view in VIEWS:
            if view not in views or views[view]["rank"] is None:
                line.append("–")
                continue
            row = views[view]
            band = "" if row["rank_low"] is None else f" ({row['rank_low']}–{row['rank_high']})"
            line.append(f"{row['value']:.1f}, {row['rank']}{band}")
        tested = pick(analysis["paired"], target=target, metric=outcome, scope="grid_mean")
        lines.append([*line, *against(reference, method, tested)])
    head = ["method", "best LR", "test accuracy there", *(v.replace("_", " ") for v in VIEWS)]
    return table([*head, f"minus {reference}, over the grid (95 % CI)", "Holm p"], lines)


def against(reference: str, method: str, tested: Iterable[Row]) -> list[str]:
    """Paired difference method - reference with its interval, and Holm's p."""
    for row in tested:
        if {row["method_a"], row["method_b"]} == {method, reference} and row["p_holm"] is not None:
            sign = 1 if row["method_a"] == method else -1
            ends = sorted(sign * row[end] for end in ("ci_low", "ci_high"))
            text = f"{sign * row['mean_diff']:+.1f} ({ends[0]:+.1f} to {ends[1]:+.1f})"
            return [text, number(row["p_holm"], "{:.2g}")]
    return ["–", "–"]


def agreement(analysis: Row) -> str:
    lines = [
        [
            row["target"],
            row["metric"],
            f"{row['view_a']} / {row['view_b']}".replace("_", " "),
            str(row["n_methods"]),
            number(row["kendall_tau"], "{:+.2f}"),
            number(row["p"], "{:.2g}"),
            f"{row['best_a']} / {row['best_b']}",
        ]
        for row in analysis["ranking_agreement"]
    ]
    return table(["target", "metric", "views", "methods", "tau", "p", "first"], lines)


def compared(analysis: Row, target: str, first: str, second: str) -> str:
    """Two methods in what they keep: at equal accuracy and movement, where both fit, per rate."""
    pair = {"target": target, "method_a": first, "method_b": second}
    lines = []
    for outcome in outcomes_of(analysis):
        views = list(pick(analysis["matched_views"], metric=outcome, **pair))
        tests = list(pick(analysis["paired"], metric=outcome, **pair))
        for view, what in (("equal_val_accuracy", "validation accuracy"),
                           ("equal_weight_drift", "weight movement")):  # fmt: skip
            for row in (row for row in views if row["view"] == view and row["at"] is not None):
                at = f"{100 * row['at']:.1f} %" if what.startswith("val") else f"{row['at']:.3g}"
                lines.append([outcome, f"equal {what}, {at}", *interval(row, "diff"), "–"])
        for row in (row for row in tests if row["scope"] in ("both_fit", "per_lr", "grid_mean")):
            scope = {"both_fit": "rates at which both fit", "grid_mean": "mean over the grid"}
            where = scope.get(row["scope"]) or f"rate {row['learning_rate']:g}"
            p = number(row["p_holm"], "{:.2g}")
            lines.append([outcome, where, *interval(row, "mean_diff"), p])
    head = ["kept on", "held equal", f"{first} less {second}, points", "95 % interval", "Holm p"]
    short = {name: name.split(".", 1)[1].rsplit(".", 1)[0] for name in outcomes_of(analysis)}
    return table(head, ([short[name], *rest] for name, *rest in lines))


def interval(row: Row, value: str) -> list[str]:
    """A difference and its interval, or why there is none."""
    if row[value] is None:
        return ["–", row["reason"] or "–"]
    if row["ci_low"] is None:
        return [f"{row[value]:+.1f}", row["reason"] or "–"]
    return [f"{row[value]:+.1f}", f"{row['ci_low']:+.1f} to {row['ci_high']:+.1f}"]


def frontier(analysis: Row) -> str:
    lines = [
        [
            row["target"],
            row["transfer"],
            row["method"],
            f"{row['learning_rate']:g}",
            plus_minus(row["mean_test_accuracy"], row["sd_test_accuracy"], 100),
            plus_minus(row["mean_retention_pct"], row["sd_retention_pct"]),
        ]
        for row in analysis["frontier"]
        if row["method"]
    ]
    return table(["target", "transfer", "method", "LR", "test accuracy", "kept"], lines)


def choice(analysis: Row) -> str:
    lines = [
        [
            row["target"],
            row["budget"],
            row["standing"].replace("_", "-"),
            *(
                str(row["method"]),
                number(row["learning_rate"], "{:g}"),
                number(row["alpha"], "{:g}"),
            ),
            plus_minus(row["test_accuracy"], row["sd_test_accuracy"], 100),
            plus_minus(row["retention_pct"], row["sd_retention_pct"]),
            number(row["p_meets"], "{:.2f}"),
            number(row["p_chosen"], "{:.2f}"),
        ]
        for row in analysis["choice"]
        if row["standing"] in ("chosen", "runner_up", "misses")
    ]
    head = ["target", "budget", "standing", "method", "LR", "alpha", "test accuracy", "kept"]
    return table([*head, "meets", "chosen"], lines)


def predictors(analysis: Row, most: str = "12") -> str:
    """The signals that rank runs most like their retention, each in the better of its forms."""
    rows = [row for row in analysis["predictors"] if row["spearman_overall"] is not None]
    rows.sort(key=lambda row: -abs(row["spearman_overall"]))
    best = {(row["signal"].strip("|"), row["when"], row["outcome"]): row for row in reversed(rows)}
    rows = [row for row in rows if any(row is one for one in best.values())]
    lines = [
        [
            row["signal"],
            row["when"],
            row["outcome"].split(".", 1)[-1],
            number(row["spearman_overall"], "{:+.2f}"),
            number(row["within_group_mean_signed"], "{:+.2f}"),
            str(row["n"]),
        ]
        for row in rows[: int(most)]
    ]
    head = ["signal", "when", "kept on", "rank correlation", "within target and method", "runs"]
    return table(head, lines)


def doses(analysis: Row, least: str = "0.2") -> str:
    """Every axis over the targets and sets of a study: how far it brings methods together."""
    found: dict[str, list[Row]] = {}
    for row in analysis["dose_axes"]:
        if row["collapse"] is not None and row["covered"] >= float(least):
            found.setdefault(row["axis"], []).append(row)
    lines = []
    for axis, rows in found.items():
        mean = math.exp(sum(math.log(row["collapse"]) for row in rows) / len(rows))
        covered = sum(row["covered"] for row in rows) / len(rows)
        several = len({row["outcome"] for row in rows}) > 1
        each = "; ".join(
            f"{row['outcome'].split('.')[1] if several else row['target']} "
            f"{number(row['collapse'], '{:.2f}')} "
            f"({number(row['ci_low'], '{:.2f}')} to {number(row['ci_high'], '{:.2f}')})"
            for row in rows
        )
        lines.append((mean, [f"`{axis}`", f"{mean:.2f}", f"{covered:.0%}", each]))
    head = ["held equal", "collapse", "cells that meet", "by target, or set (95 % CI)"]
    return table(head, [line for _, line in sorted(lines, key=lambda pair: pair[0])])


def ranked(analysis: Row, when: str, within: str, most: str = "8") -> str:
    """The first signals of `signal_ranks`, and weight drift, per outcome."""
    lines = []
    for row in pick(analysis["signal_ranks"], when=when, within=within):
        if (row["rank"] or math.inf) <= int(most) or row["signal"] == "|drift.weight_drift_rel|":
            gap = [] if row["gap"] is None else [f"{row['gap']:+.2f}"]
            gap += (
                []
                if row["gap"] is None
                else [f"({row['gap_ci_low']:+.2f} to {row['gap_ci_high']:+.2f})"]
            )
            ends = [number(row[end], "{:+.2f}") for end in ("ci_low", "ci_high")]
            rho = number(row["rho"], "{:+.2f}")
            lines.append(
                [
                    str(row["rank"] or "–"),
                    f"`{row['signal']}`",
                    rho,
                    " to ".join(ends),
                    " ".join(gap) or "–",
                ]
            )
    return table(
        ["rank", "signal", "ρ", "95 % CI", "|ρ| less that of weight drift (95 % CI)"], lines
    )


def forewarned(analysis: Row) -> str:
    lines = [
        [
            row["split"],
            number(row["n"], "{}"),
            *(number(row[key]) for key in ("mae", "mae_mean", "mae_epoch_retention")),
            *(number(row[key]) for key in ("mae_there", "mae_lower_rate")),
            *(str(row["against_mean"]), str(row["against_epoch_retention"])),
            str(row["against_lower_rate"]),
            *(number(row[k], "{:.2f}") for k in ("spearman", "spearman_within", "coverage")),
            number(row["median_width"], "{:.0f}"),
        ]
        for row in analysis["early_warning"]
    ]
    head = ["left out", "runs", "error pp", "of the mean", "of retention then"]
    head += ["error pp, with a lower rate", "of next lower rate"]
    head += ["against mean", "against retention then", "against lower rate", "rho", "rho in method"]
    return table([*head, "covered (80 %)", "width pp"], lines)


def lost(analysis: Row, target: str) -> str:
    """Lost, gone and misaligned points of every cell and transfer dataset."""
    found: dict[tuple[str, str, float], dict[str, Row]] = {}
    for row in pick(analysis["cells"], target=target):
        place, _, field = row["metric"].rpartition(".")
        if field in ("lost_pp", "gone_pp", "misaligned_pp"):
            name = place.removeprefix("transfer.")
            key = (name, row["method"], row["learning_rate"])
            found.setdefault(key, {"": row})[field] = row
    lines = []
    for (name, method, rate), fields in sorted(found.items()):
        texts = [spread(fields.get(f"{what}_pp")) for what in ("lost", "gone", "misaligned")]
        if texts[0] != "–":
            fit = FIT_SIGNS.get(fields[""].get("fit"), "")
            cut = [text.rstrip(" *") for text in texts]
            lines.append([name, f"{method}{fit}", f"{rate:g}", *cut])
    return table(["set", "method", "LR", "lost, pp", "gone, pp", "misaligned, pp"], lines)


def lost_at_equal(analysis: Row, target: str, first: str, second: str) -> str:
    """What two methods lose, and what of it is gone, where they are equally accurate."""
    where = {"target": target, "method_a": first, "method_b": second}
    lines = []
    for row in pick(analysis["matched_views"], view="equal_val_accuracy", **where):
        place, _, field = row["metric"].rpartition(".")
        if field in ("lost_pp", "gone_pp") and row["at"] is not None:
            each = [number(row[f"value_{which}"]) for which in "ab"]
            at = f"{100 * row['at']:.1f} %"
            name = place.removeprefix("transfer.")
            lines.append([name, field.removesuffix("_pp"), at, *each, *interval(row, "diff")])
    lines.sort(key=lambda line: (line[0], line[1] != "lost"))
    head = ["set", "points", "validation accuracy", first, second, "difference", "95 % interval"]
    return table(head, lines)


def calibration(analysis: Row, target: str, metric: str = "ece") -> str:
    """Calibration before and after, and with a temperature refit."""
    lines = []
    for row in pick(analysis["calibrated"], target=target):
        place, _, field = row["metric"].rpartition(".")
        if field == metric:
            values = [row[key] for key in ("before", "refit_before", "now", "refit_now")]
            texts = [number(value, "{:.3f}") for value in values]
            ends = [number(row[end], "{:.3f}") for end in ("ci_low", "ci_high")]
            texts[2] += f" ({ends[0]} to {ends[1]})"
            name = place.removeprefix("transfer.")
            lines.append([name, row["method"], f"{row['learning_rate']:g}", *texts])
    head = ["set", "method", "LR", "untouched", "refit", "adapted (95 % CI)", "refit"]
    return table(head, sorted(lines, key=lambda line: (line[0], line[1], float(line[2]))))


def fell(analysis: Row, target: str, method: str, rate: str, transfer: str, most: str = "6") -> str:
    """The classes of a transfer dataset that fell most in one cell."""
    where = {"target": target, "method": method, "transfer": transfer}
    rows = [r for r in pick(analysis["lost_classes"], **where) if r["learning_rate"] == float(rate)]
    rows.sort(key=lambda row: row["change_pp"])
    lines = [
        [
            row["class_name"],
            str(row["n_images"]),
            f"{100 * row['accuracy_before']:.0f} %",
            f"{100 * row['accuracy_now']:.0f} %",
            *interval(row, "change_pp"),
            number(row["p_holm"], "{:.2g}"),
            f"{row['fell_into']} ({100 * row['fell_into_share']:.0f} %)",
            f"{row['nearest_target']} ({row['similarity']:+.2f})",
        ]
        for row in rows[: int(most)]
    ]
    head = ["class", "images", "before", "now", "change, pp", "95 % interval", "Holm p"]
    return table([*head, "fell into", "nearest target class"], lines)


def likeness(analysis: Row, target: str, method: str, *rates: str) -> str:
    """Does loss follow the target? Rank correlation of how near a class is and how it changed."""
    lines = []
    for rate in rates:
        found: dict[str, list[Row]] = {}
        for row in pick(analysis["lost_classes"], target=target, method=method):
            if row["learning_rate"] == float(rate) and row["accuracy_before"] > 0:
                found.setdefault(row["transfer"], []).append(row)
        for name, rows in sorted(found.items()):
            near, change = ([row[key] for row in rows] for key in ("similarity", "change_pp"))
            test = spearmanr(near, change)
            line = [f"{test.statistic:+.2f}", f"{test.pvalue:.2g}"]
            lines.append([name, f"{float(rate):g}", str(len(rows)), *line])
    return table(["set", "LR", "classes", "rho", "p"], lines)


TABLES: dict[str, Callable[..., str]] = {
    "cells": cells,
    "compared": compared,
    "ranks": ranks,
    "agreement": agreement,
    "frontier": frontier,
    "choice": choice,
    "predictors": predictors,
    "doses": doses,
    "ranked": ranked,
    "forecast": forewarned,
    "lost": lost,
    "lost_at_equal": lost_at_equal,
    "calibration": calibration,
    "fell": fell,
    "likeness": likeness,
}
"""What a page asks for by name; the arguments after the analysis are words of the page."""
