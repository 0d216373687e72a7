"""Does a signal foretell retention? Rank correlations over all runs and inside groups of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipdrift.analysis.statistics.columns import (
    Signal,
    column,
    matched_runs,
    pairs_of_interest,
    parts,
)
from clipdrift.analysis.statistics.predictor_errors import NOT_SURE, Errors
from clipdrift.analysis.statistics.ranks import Floats, spearman

Groups = list[NDArray[np.intp]]


def rows(
    frame: pd.DataFrame, *, reference: str | None = None, level: float = 0.95
) -> list[dict[str, Any]]:
    """Spearman correlation of every signal with every final retention, per backbone.

    A drift counts twice: `drift.x` ranks runs by the value with its sign, `|drift.x|` by how far
    it is from rest. Where training may move a signal either way, the first can be near 0 while
    the second is near -1.

    Overall: over all matched runs of a backbone. Within target: mean of |rho| over targets.
    Within group: the same over target x method, where neither the target nor the method can make
    the correlation; and once more with one fixed sign, mean of sign(rho overall) * rho, which is
    negative where the groups go against the overall direction. Groups in which rho is undefined
    (fewer than 3 runs, or nothing varies) are left out of the mean and not counted in `n_groups`.

    p and interval of the overall rho are of this grid of targets, methods and rates, seeds being
    the sample: t on Fisher's z = artanh(rho), its error found by leaving out one seed at a time.
    They are of these images too: images are not drawn.
    `gap` is |rho| less that of a reference signal read at the same moment, over the runs in which
    both are defined; its interval likewise, on rho.

    Args:
        frame: one row per finished run; columns as `runs_frame` makes them.
        reference: name of a signal; default mean CKA, or the learning rate where there is none.
        level: coverage.

    Returns:
        One dict per backbone, outcome, signal and moment, with keys `backbone, signal, when,
        outcome, n, n_seeds, spearman_overall, p, ci_low, ci_high, interval_over, reference, gap,
        gap_ci_low, gap_ci_high, within_target_mean_abs, n_targets, within_group_mean_abs,
        within_group_mean_signed, n_groups, reason`. rho in [-1, 1].

    Reference: Spearman (1904), American Journal of Psychology 15(1); Fisher (1921), Metron 1, for
        z; Tukey (1958), Annals of Mathematical Statistics 29(2), for the error.
    """
    out = []
    for (backbone,), runs in parts(matched_runs(frame), "backbone"):
        pairs = pairs_of_interest(runs)
        values = {name: column(runs, name) for s, o in pairs for name in (s.column, o)}
        targets = _positions(runs, ["target"])
        groups = _positions(runs, ["target", "method"])
        group_of = np.empty(len(runs), dtype=np.intp)
        for number, at in enumerate(groups):
            group_of[at] = number
        seeds = runs["seed"].to_numpy()
        errors = Errors(pairs, values, seeds, group_of, reference, level)
        for signal, outcome in pairs:
            key = {"backbone": backbone, **_names(signal, outcome)}
            found = _correlations(values[signal.column], values[outcome], targets, groups)
            sure = NOT_SURE if found["spearman_overall"] is None else errors.row(signal, outcome)
            reasons = [found.pop("reason"), sure["reason"]]
            out.append({**key, **found, **sure, "reason": "; ".join(filter(None, reasons)) or None})
    return out


def _names(signal: Signal, outcome: str) -> dict[str, Any]:
    return {"signal": signal.name, "when": signal.when, "outcome": outcome}


def _positions(runs: pd.DataFrame, keys: list[str]) -> Groups:
    indices: Mapping[Any, Any] = runs.groupby(keys, sort=True).indices
    return [np.asarray(indices[key], dtype=np.intp) for key in sorted(indices)]


def _correlations(x: Floats, y: Floats, targets: Groups, groups: Groups) -> dict[str, Any]:
    overall = spearman(x, y, ("signal", "outcome"))
    by_target, by_group = (_defined(x, y, part) for part in (targets, groups))
    sign = None if overall.rho is None or overall.rho == 0 else float(np.sign(overall.rho))
    reasons = [overall.reason] if overall.reason else []
    if overall.rho is not None and not by_group:
        reasons.append("no target x method group in which the correlation is defined")
    return {
        "n": overall.n,
        "spearman_overall": overall.rho,
        "within_target_mean_abs": _mean(np.abs(by_target)),
        "n_targets": len(by_target),
        "within_group_mean_abs": _mean(np.abs(by_group)),
        "within_group_mean_signed": None if sign is None else _mean(sign * np.array(by_group)),
        "n_groups": len(by_group),
        "reason": "; ".join(reasons) or None,
    }


def _defined(x: Floats, y: Floats, groups: Groups) -> list[float]:
    found = (spearman(x[rows], y[rows]).rho for rows in groups)
    return [rho for rho in found if rho is not None]


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if values.size else None


__all__ = ["rows"]
