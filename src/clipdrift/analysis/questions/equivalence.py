"""Are two methods the same within a margin? So that "no difference" is a result."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from clipdrift.analysis.questions.paired import default_metrics
from clipdrift.analysis.statistics.differences import ALL_PAIRS, BOTH_FIT, Differences, Gaps
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION, fits
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.pairs import matched_pairs

ACCURACY_MARGIN = 0.01
RETENTION_MARGIN_PCT = 2.0
ALPHA = 0.05


def rows(
    frame: pd.DataFrame,
    *,
    margins: Mapping[str, float] | None = None,
    varied: Collection[str] = (),
    compare_with: Collection[str] | None = None,
    images: Images | None = None,
    underfit_fraction: float = UNDERFIT_FRACTION,
    alpha: float = ALPHA,
) -> list[dict[str, Any]]:
    """Two one-sided paired tests (TOST) against a stated margin.

    p_lower tests mean(d) <= -margin, p_upper tests mean(d) >= margin, d = method_a - method_b;
    p_tost is the larger. Equivalent at level alpha where p_tost < alpha, which is where the
    1 - 2 alpha interval lies within the margins. Different where that interval lies wholly outside
    them. Otherwise the data leave it open. Error and scopes are those of `paired.rows`, less the
    scope that takes learning rates for replicates: t over seeds, images too where they are known.

    Args:
        frame: one row per finished run.
        margins: metric -> margin in the metric's unit, above 0; default `default_margins`.
        varied: factors whose fingerprints may differ between matched runs.
        compare_with: methods of which every pair holds one; default every pair.
        images: which images each of these runs was right on.
        underfit_fraction: share of the best cell's accuracy from which on a cell fits.
        alpha: level of each one-sided test.

    Returns:
        One dict per backbone, target, pair of methods, metric and scope: `backbone, target,
        metric, method_a, method_b, scope, lr, n_pairs, n_seeds, margin, mean_diff, n_images,
        image_se, interval_over, p_lower, p_upper, p_tost, ci_low, ci_high, ci_level, result
        ("equivalent", "different", "inconclusive"), words, run_ids, reason`.

    Reference: Schuirmann (1987), J. Pharmacokinet. Biopharm. 15(6).
    """
    wanted = default_margins(frame) if margins is None else margins
    flags = fits(frame, underfit_fraction)
    out = []
    for pairs in matched_pairs(frame, varied, compare_with):
        key = {"backbone": pairs.backbone, "target": pairs.target}
        methods = (pairs.method_a, pairs.method_b)
        differences = Differences(pairs, flags, images)
        for metric, margin in wanted.items():
            names = {"metric": metric, "method_a": methods[0], "method_b": methods[1]}
            for gaps in differences.of(metric):
                if gaps.scope == ALL_PAIRS:
                    continue
                found = _tost(gaps, margin, alpha) | {"words": None}
                if found["result"] is not None:
                    found["words"] = _in_words(found, metric, methods, gaps)
                out.append({**key, **names, **found})
    return out


def default_margins(frame: pd.DataFrame) -> dict[str, float]:
    """One point for accuracies (fractions: 0.01), two points for retention; none for drift."""
    out = {}
    for metric in default_metrics(frame):
        if metric.endswith("accuracy"):
            out[metric] = ACCURACY_MARGIN
        elif metric.endswith(".retention_pct"):
            out[metric] = RETENTION_MARGIN_PCT
    return out


def _tost(gaps: Gaps, margin: float, alpha: float) -> dict[str, Any]:
    d, n = gaps.values, int(gaps.values.size)
    row: dict[str, Any] = {
        "scope": gaps.scope,
        "lr": gaps.lr,
        "n_pairs": gaps.n_pairs,
        "n_seeds": gaps.n_seeds,
        "margin": margin,
        "mean_diff": float(d.mean()) if n else None,
        **gaps.over_images(),
        **dict.fromkeys(["p_lower", "p_upper", "p_tost", "ci_low", "ci_high"]),
        "ci_level": 1 - 2 * alpha,
        "result": None,
        "run_ids": gaps.run_ids,
        "reason": gaps.untestable or gaps.unread,
    }
    if gaps.untestable:
        return row
    error, mean = gaps.error, float(d.mean())
    lower, upper = error.p_above(mean + margin), error.p_above(margin - mean)
    half = error.half(2 * alpha)
    low, high = mean - half, mean + half
    result = "inconclusive"
    if max(lower, upper) < alpha:
        result = "equivalent"
    elif low > margin or high < -margin:
        result = "different"
    tests = {"p_lower": lower, "p_upper": upper, "p_tost": max(lower, upper)}
    return {**row, **tests, "ci_low": low, "ci_high": high, "result": result}


def _in_words(found: dict[str, Any], metric: str, methods: tuple[str, str], gaps: Gaps) -> str:
    a, b = methods
    interval = f"{found['ci_level']:.0%} interval {found['ci_low']:.3g} to {found['ci_high']:.3g}"
    margin = f"{found['margin']:g}"
    statement = {
        "equivalent": f"{a} and {b} differ by less than {margin} in {metric}",
        "different": f"{a} and {b} differ by more than {margin} in {metric}",
        "inconclusive": f"whether {a} and {b} differ by {margin} in {metric} is open",
    }[found["result"]]
    where = f"at {gaps.lr:g}" if gaps.lr is not None else f"on average over {len(gaps.lrs)} rates"
    fit = " where both fit" if gaps.scope == BOTH_FIT else ""
    return f"{statement} {where}{fit} ({interval})"


__all__ = ["ACCURACY_MARGIN", "ALPHA", "RETENTION_MARGIN_PCT", "default_margins", "rows"]
