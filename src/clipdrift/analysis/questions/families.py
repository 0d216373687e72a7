"""Which tests answer one question, so that Holm's correction runs over them and no others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from clipdrift.analysis.statistics.columns import Floats
from clipdrift.analysis.statistics.differences import ALL_PAIRS
from clipdrift.analysis.statistics.fit import accuracy_column

if TYPE_CHECKING:
    from clipdrift.analysis.questions.paired import Paired

TARGET_ACCURACY, RETENTION, DRIFT = "target_accuracy", "retention", "drift"
QUESTIONS = (TARGET_ACCURACY, RETENTION, DRIFT)
NO_REPLICATES = "uncorrected: learning rates are no replicates"
NO_QUESTION = "uncorrected: answers none of the questions asked"


def question_of(metric: str, frame: pd.DataFrame) -> str | None:
    """The question that a metric answers, None for what stands beside another.

    Target accuracy: of the test part, or of the validation part where no test was read. Retention
    of each transfer dataset, or accuracy on it where its baseline is not known. Each drift signal.
    """
    if metric == accuracy_column(frame):
        return TARGET_ACCURACY
    if metric.startswith("drift."):
        return DRIFT
    if not metric.startswith("transfer."):
        return None
    retention = f"{metric.rsplit('.', 1)[0]}.retention_pct"
    return RETENTION if metric == retention or retention not in frame else None


def corrected(
    rows: Sequence[Paired], frame: pd.DataFrame, questions: Collection[str]
) -> list[Paired]:
    """Paired rows with their `p_holm` and `family`.

    A family is one metric on one target of one backbone in one scope: all pairs of methods, and of
    scope "per_lr" all rates. So p depends on the comparisons that were made and not on which other
    columns, targets or backbones lie beside. Where p is not corrected `family` says so.

    Reference: Holm (1979), Scand. J. Stat. 6(2).
    """
    known = {metric: question_of(metric, frame) for metric in {row.metric for row in rows}}
    families: dict[tuple[str, ...], list[int]] = {}
    out = list(rows)
    for i, row in enumerate(rows):
        if row.p_t is None:
            continue
        if row.scope == ALL_PAIRS:
            out[i] = replace(row, family=NO_REPLICATES)
        elif known[row.metric] not in questions:
            out[i] = replace(row, family=NO_QUESTION)
        else:
            key = (row.metric, row.target, row.backbone, row.scope)
            families.setdefault(key, []).append(i)
    for (metric, target, backbone, scope), own in families.items():
        adjusted = holm(np.array([rows[i].p_t for i in own], dtype=np.float64))
        tests = f"{len(own)} {scope} test" + ("s" if len(own) > 1 else "")
        name = f"{known[metric]}: {tests} of {metric} on {target} ({backbone})"
        for i, p in zip(own, adjusted, strict=True):
            out[i] = replace(rows[i], p_holm=float(p), family=name)
    return out


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
