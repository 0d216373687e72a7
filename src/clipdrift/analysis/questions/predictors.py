"""Does a signal foretell retention? Rank correlations over all runs and inside groups of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipdrift.analysis.rows import Count, OfBackbone, Outcome, Reason, Said, key, sure
from clipdrift.analysis.statistics.columns import (
    Signal,
    When,
    column,
    matched_runs,
    pairs_of_interest,
    parts,
)
from clipdrift.analysis.statistics.predictor_errors import Errors
from clipdrift.analysis.statistics.ranks import Floats, spearman

Groups = list[NDArray[np.intp]]


@dataclass(frozen=True, kw_only=True)
class Predictor(OfBackbone):
    """Every signal, final and after epoch 1, against final retention, and against what is gone.

    p and intervals draw seeds; the images are these.

    signal: a drift by its value with sign (drift.x) and by its size (|drift.x|)
    when: when the signal is read
    n_seeds: seeds: the sample
    spearman_overall: over all runs of the grid
    ci_low: t over seeds on Fisher's z, one seed left out at a time
    p: of no correlation, from the same t
    reference: signal that others are held against
    gap: |rho| less that of the reference, over the runs that have both
    gap_ci_low: as that of rho
    within_target_mean_abs: mean of |rho| over targets
    n_targets: targets with a rho
    within_group_mean_abs: mean of |rho| over target x method
    within_group_mean_signed: mean of sign(overall) * rho within target x method; negative: groups
        go against it
    n_groups: groups with a rho
    """

    table: ClassVar = "predictors"

    outcome: Outcome
    signal: Annotated[str, key("Signal", "metric")]
    when: Annotated[When, key("Read at", "moment")]
    n: Count
    n_seeds: Annotated[int | None, Said("count")] = None
    spearman_overall: Annotated[float | None, Said("two", "ρ overall")] = None
    ci_low: Annotated[float | None, sure("95 % CI", "two", "ci_high")] = None
    ci_high: float | None = None
    p: Annotated[float | None, sure("p", "p")] = None
    reference: str | None = None
    gap: Annotated[float | None, Said("two", "Gap")] = None
    gap_ci_low: Annotated[float | None, sure("95 % CI of gap", "two", upto="gap_ci_high")] = None
    gap_ci_high: float | None = None
    within_target_mean_abs: Annotated[float | None, Said("two", "mean |ρ| in target")]
    n_targets: Annotated[int, Said("count")]
    within_group_mean_abs: Annotated[float | None, Said("two", "mean |ρ| in target × method")]
    within_group_mean_signed: Annotated[float | None, Said("two", "with one sign")]
    n_groups: Annotated[int, Said("count")]
    reason: Reason = None


def rows(frame: pd.DataFrame, *, reference: str | None = None) -> list[Predictor]:
    """Spearman correlation of every signal with every final retention, per backbone.

    And with what is gone (`gone_pp`) of each transfer dataset, where runs were read in full.

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

    Returns:
        One row per backbone, outcome, signal and moment; rho in [-1, 1].

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
        errors = Errors(pairs, values, seeds, group_of, reference)
        for signal, outcome in pairs:
            x, y = values[signal.column], values[outcome]
            row = _correlated(backbone, signal, outcome, x, y, targets, groups)
            if row.spearman_overall is not None:
                told = errors.of(signal, outcome)
                reasons = filter(None, [row.reason, told.reason])
                row = replace(
                    row,
                    n_seeds=told.n_seeds,
                    p=told.p,
                    ci_low=told.ci.low,
                    ci_high=told.ci.high,
                    reference=errors.reference,
                    gap=told.gap,
                    gap_ci_low=told.gap_ci.low,
                    gap_ci_high=told.gap_ci.high,
                    reason="; ".join(reasons) or None,
                )
            out.append(row)
    return out


def _positions(runs: pd.DataFrame, keys: list[str]) -> Groups:
    indices: Mapping[Any, Any] = runs.groupby(keys, sort=True).indices
    return [np.asarray(indices[key], dtype=np.intp) for key in sorted(indices)]


def _correlated(
    backbone: str,
    signal: Signal,
    outcome: str,
    x: Floats,
    y: Floats,
    targets: Groups,
    groups: Groups,
) -> Predictor:
    overall = spearman(x, y, ("signal", "outcome"))
    by_target, by_group = (_defined(x, y, part) for part in (targets, groups))
    sign = None if overall.rho is None or overall.rho == 0 else float(np.sign(overall.rho))
    reason = overall.reason
    if overall.rho is not None and not by_group:
        reason = "no target x method group in which the correlation is defined"
    return Predictor(
        backbone=backbone,
        outcome=outcome,
        signal=signal.name,
        when=signal.when,
        n=overall.n,
        spearman_overall=overall.rho,
        within_target_mean_abs=_mean(np.abs(by_target)),
        n_targets=len(by_target),
        within_group_mean_abs=_mean(np.abs(by_group)),
        within_group_mean_signed=None if sign is None else _mean(sign * np.array(by_group)),
        n_groups=len(by_group),
        reason=reason,
    )


def _defined(x: Floats, y: Floats, groups: Groups) -> list[float]:
    found = (spearman(x[rows], y[rows]).rho for rows in groups)
    return [rho for rho in found if rho is not None]


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if values.size else None
