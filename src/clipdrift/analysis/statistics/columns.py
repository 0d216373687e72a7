"""Which columns of the run frame are signals and outcomes, and in which order runs are read.

A drift signal stands in two forms: as it is read, and `|name|`, its distance from the value at
rest. The first asks in which direction something moved, the second how far.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
When = Literal["final", "epoch1"]
WHENS: tuple[When, When] = ("final", "epoch1")

EPOCH1 = "epoch1."
LOG_LR = "log10_learning_rate"
VAL_ACCURACY = "val_accuracy"
RUN_ORDER = ["backbone", "target", "method", "learning_rate", "seed", "run_id"]
DRIFT = "drift."
SIMILARITIES = ("cka", "linear_cka", "debiased_cka", "rsa")
OUTCOMES_OF_THEIR_OWN = ("extra.interpolation", "extra.corruption.", "extra.test_")


class Signal(NamedTuple):
    """A quantity that may foretell the outcome: its name, when it is read, its column.

    The size of a drift has no column of the frame; `column` makes it.
    """

    name: str
    when: When
    column: str


def matched_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs of matched methods in one fixed order, with log10 of the learning rate as a column.

    Reference methods are left out: they stand on rates of their own, so a correlation over them
    would mix the question with the choice of references. The fixed order makes every sum, and
    with it every digit, independent of the order of the rows.
    """
    matched = frame if "role" not in frame else frame[frame["role"] == "matched"]
    ordered = matched.sort_values(RUN_ORDER, kind="stable").reset_index(drop=True)
    rates = ordered["learning_rate"].to_numpy(dtype=np.float64)
    return pd.concat([ordered, pd.DataFrame({LOG_LR: np.log10(rates)})], axis=1)


def parts(frame: pd.DataFrame, *keys: str) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Sub-frames by text keys, in sorted order of the keys, rows in their order."""
    for values, part in frame.groupby(list(keys), sort=True):
        yield tuple(str(value) for value in values), part.reset_index(drop=True)


def column(frame: pd.DataFrame, name: str) -> Floats:
    """A column as float64, infinities turned to NaN: they are undefined as well.

    `|name|` is the distance of a drift signal from its value at rest, 0 or more.
    """
    if is_size(name):
        plain = name[1:-1]
        return np.abs(column(frame, plain) - resting_value(plain))
    values = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def size_of(name: str) -> str:
    """Name of the absolute form of a drift signal."""
    return f"|{name}|"


def is_size(name: str) -> bool:
    """Whether a name is of the absolute form of a signal.

    >>> is_size(size_of("drift.gini_pct")), is_size("drift.gini_pct")
    (True, False)
    """
    return len(name) > 2 and name[0] == name[-1] == "|"


def is_outcome(name: str) -> bool:
    return name.startswith("transfer.") and name.endswith(".retention_pct")


def outcome_columns(frame: pd.DataFrame) -> list[str]:
    """Final retention on every transfer dataset, sorted by name."""
    return sorted(name for name in frame.columns if is_outcome(name))


def signal_columns(frame: pd.DataFrame) -> list[Signal]:
    """Every signal, as read at the end and after epoch 1.

    These are all `drift.*`, each as it is read and as `|drift.*|`, its size; `extra.*` (less what
    was read of interpolated weights and corrupted images, which are outcomes of their own);
    validation accuracy; retention itself (after epoch 1 the most direct of early signals; at the
    end that of the other transfer datasets); and the learning rate, the reference that costs
    nothing. The learning rate has no moment and stands at both.
    """
    found = []
    for name in map(str, frame.columns):
        when: When = "epoch1" if name.startswith(EPOCH1) else "final"
        plain = name.removeprefix(EPOCH1)
        if plain.startswith(OUTCOMES_OF_THEIR_OWN):
            continue
        if plain == VAL_ACCURACY or plain.startswith((DRIFT, "extra.")) or is_outcome(plain):
            found.append(Signal(plain, when, name))
        if plain.startswith(DRIFT):
            found.append(Signal(size_of(plain), when, size_of(name)))
    early = any(signal.when == "epoch1" for signal in found)
    found += [Signal(LOG_LR, when, LOG_LR) for when in WHENS if when == "final" or early]
    # The two forms of a drift stand side by side, as it is read first.
    return sorted(found, key=lambda s: (WHENS.index(s.when), s.name.strip("|"), is_size(s.name)))


def pairs_of_interest(frame: pd.DataFrame) -> list[tuple[Signal, str]]:
    """All (signal, outcome): final retention, and what is gone, of every transfer dataset.

    Less final retention on the dataset that the outcome is of.
    """
    gone = sorted(name for name in map(str, frame.columns) if name.endswith(".gone_pp"))
    return [
        (signal, outcome)
        for outcome in [*outcome_columns(frame), *gone]
        for signal in signal_columns(frame)
        if signal.column != f"{outcome.rpartition('.')[0]}.retention_pct"
    ]


def resting_value(name: str) -> float:
    """Value of a drift signal on the untouched model: 1 for similarities (CKA), else 0.

    >>> resting_value("drift.cka_mean"), resting_value("drift.gini_pct")
    (1.0, 0.0)
    """
    return 1.0 if name.rsplit(".", 1)[-1].startswith(SIMILARITIES) else 0.0
