"""The rule that ends runs early: a forecast's upper bound of final retention below a limit.

It lies in the study folder, where every worker reads it. Its verdict is a function of the reading
after one epoch alone, so that a run that was interrupted comes to the same one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clipdrift.early_warning.forecast import KEPT, MAX_BYTES, Refused, Saved, forecast_of
from clipdrift.errors import Fault, RecordError, did_you_mean
from clipdrift.paths import read_file
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.records.readings import EpochReading
from clipdrift.records.schema import EarlyStop
from clipdrift.records.writing import writing_to
from clipdrift.spec import RunConfig, StudySpec, content_hash, expand

OPTION = "--stop-below"
KIND = "clipdrift stop rule"


@dataclass(frozen=True)
class StopRule:
    """End runs whose upper bound of final retention is below `below_pct` percent.

    Only runs of which the forecast gives an interval: of a method and a backbone, and as long as
    those that it has learned from. All others run to their end.
    """

    forecast: Saved
    below_pct: float

    def verdict(
        self, config: RunConfig, backbone: str, history: Sequence[EpochReading]
    ) -> EarlyStop | None:
        """Why a run is to end now; None if it is to go on.

        Args:
            backbone: its name, as in records.
            history: what was read so far.
        """
        saved = self.forecast
        early = next((entry for entry in history if entry.epoch == saved.after_epoch), None)
        if early is None or history[-1].epoch >= config.schedule.epochs:
            return None
        moved = saved.moved(early)
        if moved is None or backbone not in saved.backbones or self.unknown(config):
            return None
        found = saved.model.forecast(moved, saved.level)
        kept, low, high = (float(values[0]) for values in found)
        if not high < self.below_pct:
            return None
        return EarlyStop(
            epoch=history[-1].epoch,
            read_after_epoch=saved.after_epoch,
            limit_pct=self.below_pct,
            forecast_pct=kept,
            low_pct=low,
            high_pct=high,
            level=saved.level,
            transfers=saved.transfers,
            forecast_hash=saved.hash,
            learned_from=dict(saved.trained_on),
        )

    def unknown(self, config: RunConfig) -> bool:
        """Whether the forecast has learned from no run of this method and length."""
        known = config.method.name in self.forecast.methods and config.method.role == "matched"
        return not known or config.schedule.epochs not in self.forecast.epochs


def limit_faults(below_pct: float) -> Iterator[Fault]:
    """What is wrong with a limit."""
    rule = "a retention in percent, above 0 and at most 100"
    if not 0 < below_pct <= 100:
        yield Fault(OPTION, rule, f"{below_pct:g}", "Give percent such as 80")
    elif below_pct <= 1:
        yield Fault(OPTION, f"{rule} (a fraction is none)", f"{below_pct:g}",
                    f"Write {100 * below_pct:g}")  # fmt: skip


def rule_faults(rule: StopRule, spec: StudySpec) -> Iterator[Fault]:
    """Why a rule makes no sense for a study: limit, transfer sets, runs that it does not know."""
    yield from limit_faults(rule.below_pct)
    configs = expand(spec, precision="float32")  # precision does not change which runs there are
    saved, names = rule.forecast, [transfer.name for transfer in spec.transfers]
    for name in saved.transfers:
        if name not in names:
            step = did_you_mean(name, names, "Learn from records that have it")
            rule_text = f"a forecast of retention on the study's transfers ({', '.join(names)})"
            yield Fault(OPTION, rule_text, repr(name), step)
    if KEPT in saved.signals and spec.evaluation.epoch_transfer_images == 0:
        yield Fault(
            OPTION,
            "a study that reads its transfers after every epoch, as the forecast does",
            "epoch_transfer_images: 0",
            "Raise it under evaluation, or learn from studies that do not read them either",
        )
    if all(rule.unknown(config) for config in configs):
        methods = sorted({config.method.name for config in configs})
        epochs = sorted({config.schedule.epochs for config in configs})
        yield Fault(
            OPTION,
            f"a forecast that knows a matched method of the study ({', '.join(methods)}, "
            f"{_numbers(epochs)} epochs)",
            f"one of {', '.join(saved.methods)}, {_numbers(saved.epochs)} epochs",
            "Learn from finished runs of the same methods and length, with --forecast-from",
        )


def backbone_faults(rule: StopRule, backbone: str) -> Iterator[Fault]:
    """A forecast of other backbones knows nothing of this one."""
    if backbone not in rule.forecast.backbones:
        known = ", ".join(rule.forecast.backbones)
        step = "Learn from finished runs of the same backbone, with --forecast-from"
        yield Fault(OPTION, f"a forecast of the study's backbone ({backbone})", known, step)


def write_rule(folder: StudyFolder, rule: StopRule | None) -> None:
    """Lay the rule where workers look for it; None takes it away.

    Raises:
        StudyFolderError: if the folder cannot be written.
    """
    path = folder.stop_rule_path
    if rule is None:
        with writing_to(path):
            path.unlink(missing_ok=True)
        return
    forecast = json.loads(rule.forecast.to_json())
    body = {"kind": KIND, "below_pct": rule.below_pct, "forecast": forecast}
    atomic_write(path, json.dumps({**body, "hash": content_hash(body)}, indent=1))


def has_rule(folder: StudyFolder, rule: StopRule | None) -> bool:
    """Whether exactly this rule, or none, lies where workers look for it."""
    try:
        there = read_rule(folder)
    except RecordError:
        return False
    if there is None or rule is None:
        return there is rule
    return (there.forecast.hash, there.below_pct) == (rule.forecast.hash, rule.below_pct)


def read_rule(folder: StudyFolder) -> StopRule | None:
    """The rule of a study folder; None where there is none.

    Raises:
        RecordError: if it is damaged or was edited.
    """
    path = folder.stop_rule_path
    if not path.exists():
        return None
    try:
        body = json.loads(read_file(path, MAX_BYTES))
        stored = body.pop("hash")
        if body["kind"] != KIND or content_hash(body) != stored:
            raise Refused("a hash that does not match")
        below = body["below_pct"]
        if type(below) not in (int, float) or not math.isfinite(below):
            raise Refused("a limit that is no number")
        return StopRule(forecast_of(body["forecast"]), float(below))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        step = "Run the study again, with or without --stop-below"
        fault = Fault(str(path), "the rule by which runs are stopped", "a damaged file", step)
        raise RecordError(fault) from None


def settled(
    folder: StudyFolder, config: RunConfig, identity: str, rule: StopRule | None
) -> RunRecord | None:
    """The record of a run that needs no measuring, else None.

    One that was stopped is settled while the rule in force would stop it again.
    """
    record = folder.recorded(config.run_id(identity), identity)
    if record is None or record.status == "failed":
        return None
    if record.status == "stopped":
        again = rule and rule.verdict(config, record.backbone, record.history)
        return record if again else None
    return record


def _numbers(values: Sequence[int]) -> str:
    return " or ".join(map(str, values)) or "an unknown number of"
