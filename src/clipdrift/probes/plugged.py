"""Drift signals of other packages: pure functions of two readings of the probe set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from clipdrift import plugins
from clipdrift.errors import Fault, PluginError, collecting
from clipdrift.probes.capture import ProbeReading
from clipdrift.probes.drift import BLOCKWISE, WHOLE, Value, mean
from clipdrift.probes.panel import ELSEWHERE, INSIDE, OF_TRACES, OUTSIDE
from clipdrift.probes.similarity import MEASURES
from clipdrift.probes.weight_updates import OF_UPDATES

STEMS = (*BLOCKWISE.values(), *WHOLE.values())
OURS = {
    *(f"{stem}{end}" for stem in STEMS for end in ("_pct", "_last_pct")),
    *("cka_mean", "cka_last", "cka", "embedding_drift"),
    *("weight_drift_rel", "projection_drift_rel"),
    *(f"{stem}_pct" for stem in OF_TRACES.values()),
    *(f"{name}{end}" for name in MEASURES for end in ("", "_mean", "_last")),
    *(
        f"{where}{name}"
        for where in ("", ELSEWHERE)
        for name in ("embedding_drift", INSIDE, OUTSIDE)
    ),
    *OF_UPDATES,
}
"""Names of the signals that clipdrift reads itself."""


def plugged_signals(
    names: Sequence[str], adapted: ProbeReading, baseline: ProbeReading
) -> dict[str, Value]:
    """The signals of some plugins by name: a number, or None where undefined.

    Of one that gives a number per block the mean, and all of them under `<name>_per_block`.

    Raises:
        PluginError: if one is not there, fails, or gives something else.
    """
    found: dict[str, Value] = {}
    for name in names:
        value = _value(name, adapted, baseline)
        if isinstance(value, list):
            found[f"{name}_per_block"], value = value, mean(value)
        found[name] = value
    return found


def require_probes(names: Sequence[str]) -> None:
    """Find and import probes without reading anything.

    Raises:
        PluginError: with the faults of all that are not there or no functions.
    """
    faults: list[Fault] = []
    for name in names:
        with collecting(faults):
            _function(name)
    if faults:
        raise PluginError(faults)


def _where(name: str) -> str:
    return f"evaluation.probes {name}"


def _function(name: str) -> tuple[plugins.Plugin, Any]:
    where = _where(name)
    plugin = plugins.find("probes", name, where, ours=OURS)
    function = plugins.load(plugin, where)
    if not callable(function):
        expected = "a function of two probe readings"
        raise plugins.wrong_type(plugin, where, expected, function)
    return plugin, function


def _value(name: str, adapted: ProbeReading, baseline: ProbeReading) -> Value:
    plugin, function = _function(name)
    where = _where(name)
    value = plugins.call(plugin, where, partial(function, adapted, baseline))
    values = value if isinstance(value, list) else [value]
    numbers = [None if one is None else _number(one) for one in values]
    if any(one is not None and math.isnan(one) for one in numbers):
        expected = "a float, a list of floats, or None, none of them NaN or infinite"
        raise plugins.wrong_type(plugin, where, expected, value)
    return numbers if isinstance(value, list) else numbers[0]


def _number(value: object) -> float:
    """A float; NaN for all that is none, and for what is not finite."""
    number = float(value) if isinstance(value, int | float) else math.nan
    return number if math.isfinite(number) else math.nan
