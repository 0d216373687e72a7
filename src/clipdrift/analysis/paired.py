"""Do two methods differ? Paired tests on matched runs, per learning rate and pooled."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import gammaln, stdtr, stdtrit

from clipdrift.analysis.intervals import ROUNDING
from clipdrift.analysis.pairs import MatchedRuns, dropped_in_words, matched_pairs
from clipdrift.analysis.signals import Floats, column
from clipdrift.analysis.wilcoxon import signed_rank

POOLED, PER_LR = "pooled", "per_lr"
POOLED_NOTE = "counts each learning rate as a replicate; see per_lr and mixed"


class Gaps(NamedTuple):
    """Differences method_a - method_b of one metric over some pairs, and what was left out."""

    scope: str
    lr: float | None
    values: Floats
    rounding: float
    n_dropped: int
    dropped_reason: str | None
    run_ids: list[str]


def rows(
    frame: pd.DataFrame,
    *,
    metrics: list[str] | None = None,
    varied: Collection[str] = (),
    compare_with: Collection[str] | None = None,
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """Paired comparison of every two matched methods.

    With d = method_a - method_b over n pairs: t = mean(d) sqrt(n) / SD(d) on n - 1 degrees of
    freedom, its interval, Cohen's dz = mean(d) / SD(d), Hedges' gz = J(n - 1) dz with the exact
    J(m) = Gamma(m/2) / (sqrt(m/2) Gamma((m-1)/2)), and Wilcoxon's signed-rank test. Scope "per_lr"
    has the seeds at one rate as pairs. Scope "pooled" has all rates x seeds: it counts learning
    rates as replicates. `p_holm` is Holm's step-down correction of `p_t` over the family named.

    Args:
        frame: one row per finished run; `matched_pairs` says which are paired.
        metrics: default `default_metrics`.
        varied: factors whose fingerprints may differ between matched runs.
        compare_with: methods of which every pair holds one; default every pair.
        level: coverage.

    Returns:
        One dict per backbone, target, pair of methods, metric and scope: `backbone, target,
        metric, method_a, method_b, scope, lr (null if pooled), n_pairs, n_dropped, dropped_reason,
        mean_diff, sd_diff, ci_low, ci_high, cohen_dz, hedges_gz, t, p_t, p_wilcoxon,
        wilcoxon_method, wilcoxon_floor, p_holm, family, note, run_ids, reason`.
        `wilcoxon_floor` = 2 * 0.5^n_pairs, the least p an exact two-sided test can reach.

    Reference: Student (1908); Wilcoxon (1945); Holm (1979); Hedges (1981); Lakens (2013) for dz.
    """
    wanted = default_metrics(frame) if metrics is None else metrics
    out = []
    for pairs in matched_pairs(frame, varied, compare_with):
        key = {"backbone": pairs.backbone, "target": pairs.target}
        methods = {"method_a": pairs.method_a, "method_b": pairs.method_b}
        for metric in wanted:
            for gaps in differences(pairs, metric):
                found = _test(gaps, level)
                out.append({**key, "metric": metric, **methods, **found})
    for scope in (PER_LR, POOLED):
        _add_holm([row for row in out if row["scope"] == scope], scope)
    return out


def default_metrics(frame: pd.DataFrame) -> list[str]:
    """Accuracies, each transfer dataset's accuracy and retention, and every final drift."""
    names = list(map(str, frame.columns))
    accuracies = [name for name in ("test_accuracy", "val_accuracy") if name in names]
    transfer = [
        name
        for name in names
        if name.startswith("transfer.") and name.endswith((".accuracy", ".retention_pct"))
    ]
    return [*accuracies, *sorted(transfer), *sorted(n for n in names if n.startswith("drift."))]


def differences(pairs: MatchedRuns, metric: str) -> Iterator[Gaps]:
    """Differences of a metric at each learning rate, then pooled."""
    values = column(pairs.runs, metric)
    a, b = values[pairs.first], values[pairs.second]
    defined = np.isfinite(a) & np.isfinite(b)
    ids = pairs.runs["run_id"].to_numpy(dtype=object)
    for rate in [*pairs.rates(), None]:
        here = np.ones(len(a), dtype=bool) if rate is None else pairs.lr == rate
        used = here & defined
        dropped = [drop for drop in pairs.dropped if rate is None or drop.lr == rate]
        undefined = int((here & ~defined).sum())
        scale = np.abs(np.concatenate([a[used], b[used]])).max(initial=0.0)
        yield Gaps(
            POOLED if rate is None else PER_LR,
            rate,
            a[used] - b[used],
            ROUNDING * float(scale),
            len(dropped) + undefined,
            dropped_in_words(dropped, undefined),
            sorted([*ids[pairs.first[used]], *ids[pairs.second[used]]]),
        )


def _test(gaps: Gaps, level: float) -> dict[str, Any]:
    d, n = gaps.values, int(gaps.values.size)
    rank_test = signed_rank(d, gaps.rounding)
    row: dict[str, Any] = {
        "scope": gaps.scope,
        "lr": gaps.lr,
        "n_pairs": n,
        "n_dropped": gaps.n_dropped,
        "dropped_reason": gaps.dropped_reason,
        "mean_diff": float(d.mean()) if n else None,
        **dict.fromkeys(["sd_diff", "ci_low", "ci_high", "cohen_dz", "hedges_gz", "t", "p_t"]),
        "p_wilcoxon": rank_test.p,
        "wilcoxon_method": rank_test.method,
        "wilcoxon_floor": 2 * 0.5**n if n else None,
        "p_holm": None,
        "family": None,
        "note": POOLED_NOTE if gaps.scope == POOLED else None,
        "run_ids": gaps.run_ids,
        "reason": None,
    }
    if n < 2:
        return {**row, "reason": "one pair: no spread" if n else "no usable pair"}
    sd = float(d.std(ddof=1))
    if sd <= gaps.rounding:
        return {**row, "sd_diff": 0.0, "reason": "the differences do not vary: no t test"}
    dz = float(d.mean()) / sd
    half = float(stdtrit(n - 1, (1 + level) / 2)) * sd / n**0.5
    t = dz * n**0.5
    return {
        **row,
        "sd_diff": sd,
        "ci_low": row["mean_diff"] - half,
        "ci_high": row["mean_diff"] + half,
        "cohen_dz": dz,
        "hedges_gz": hedges_factor(n - 1) * dz if n > 2 else None,
        "t": t,
        "p_t": float(2 * stdtr(n - 1, -abs(t))),
        "reason": None if n > 2 else "two pairs: Hedges' correction is undefined",
    }


def hedges_factor(df: int) -> float:
    """Hedges' exact small-sample factor J(df), which makes dz unbiased under normality; df > 1.

    >>> round(hedges_factor(4), 6)
    0.797885
    """
    return float(np.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / np.sqrt(df / 2))


def holm(p: Floats) -> Floats:
    """Holm's step-down adjusted p values: max_{j <= i} min(1, (m - j + 1) p_(j)), p ascending.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    out = np.empty_like(p)
    out[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return out


def _add_holm(family: list[dict[str, Any]], scope: str) -> None:
    tested = [row for row in family if row["p_t"] is not None]
    adjusted = holm(np.array([row["p_t"] for row in tested], dtype=np.float64))
    name = f"p_t of all {len(tested)} {scope} tests"
    for row, p in zip(tested, adjusted, strict=True):
        row.update(p_holm=float(p), family=name)


__all__ = [
    "PER_LR",
    "POOLED",
    "Gaps",
    "default_metrics",
    "differences",
    "hedges_factor",
    "holm",
    "rows",
]
