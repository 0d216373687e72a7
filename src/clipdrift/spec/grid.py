"""From a study to its runs: the shared grid, one resolved configuration per run, its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from clipdrift.spec.carving import ProbeSpec, SplitSpec
from clipdrift.spec.datasets import TargetSpec, TransferSpec
from clipdrift.spec.method_base import asked_of_method
from clipdrift.spec.methods import MethodSpec
from clipdrift.spec.part import Part
from clipdrift.spec.parts import (
    BackboneSpec,
    EvaluationSpec,
    ScheduleSpec,
    StudySpec,
    interpolation_paths,
)

PROTOCOL_VERSION = 2
"""Raised whenever a change of code changes the numbers of a run; part of every identity."""

DRAWN_ANEW = {"motion_blur": 2}
"""Kinds of damage that are drawn otherwise than in earlier records: a part of the identity of the
runs that ask for them, and of no other."""


class RunConfig(Part):
    """Everything that determines one run, resolved: no defaults left open, no overrides."""

    backbone: BackboneSpec
    target: TargetSpec
    transfers: list[TransferSpec]
    method: MethodSpec
    learning_rate: float
    seed: int
    schedule: ScheduleSpec
    splits: SplitSpec
    probe: ProbeSpec
    evaluation: EvaluationSpec
    checkpoint: Literal["best_validation", "last", "paper_test_selected"]
    precision: Literal["float32", "bfloat16"]
    interpolation: Literal["bicubic", "bilinear"]

    @property
    def name(self) -> str:
        """For people: target, method, rate and seed. Not an identity."""
        rate = repr(self.learning_rate).replace("+", "")
        return f"{self.target.name}-{self.method.name}-lr{rate}-seed{self.seed}"

    def identity(self, content: Mapping[str, str], protocol: int | None = None) -> str:
        """SHA-256 over this configuration, the hashes of weights and data, the code protocol.

        Args:
            content: name -> SHA-256 of the backbone weights and of every dataset of the run; name
                -> package and version of what other packages add to it.
            protocol: default PROTOCOL_VERSION.
        """
        resolved = self.model_dump(mode="json")
        # Where a dataset lies and what the text around it says do not change a number; its
        # content hash does. Moving a study to another machine keeps its records. Nor does what
        # would have been done had a set been missing or small.
        corrupted = resolved["target"]["corrupted"]
        for part in [resolved["target"], *corrupted, *resolved["transfers"]]:
            for key in ("folder", "files", "too_few", "missing"):
                part.pop(key, None)
        if not corrupted:  # as for what `_asked` drops
            resolved["target"].pop("corrupted")
        resolved["evaluation"] = _asked(resolved["evaluation"])
        if (paths := interpolation_paths(self.evaluation, self.method)) not in ([], ["encoder"]):
            resolved["evaluation"]["interpolation_paths"] = paths
        resolved["backbone"] = None
        resolved["method"] = asked_of_method(resolved["method"])
        return content_hash(
            {
                "protocol": protocol or PROTOCOL_VERSION,
                "config": resolved,
                "content": dict(content),
            }
        )

    def run_id(self, identity: str) -> str:
        """Folder name of the run: the name for people plus eight digits of the identity."""
        return f"{self.name}-{identity[:8]}"


def expand(spec: StudySpec, *, precision: Literal["float32", "bfloat16"]) -> list[RunConfig]:
    """All runs of a study, in the order target, learning rate, seed, method.

    Matched runs stand side by side, so that a study cut short holds whole pairs.

    Args:
        precision: what `auto` means on this machine; ignored where the study names one.
    """
    runs = []
    for target in spec.targets:
        rates = sorted({*spec.learning_rates, *_reference_rates(spec)})
        for rate in rates:
            for seed in spec.seeds:
                for method in spec.methods:
                    if rate in (method.learning_rates or spec.learning_rates) and (
                        method.targets is None or target.name in method.targets
                    ):
                        runs.append(_resolve(spec, target, method, rate, seed, precision))
    return runs


def _reference_rates(spec: StudySpec) -> set[float]:
    return {rate for method in spec.methods for rate in method.learning_rates or []}


def _resolve(
    spec: StudySpec,
    target: TargetSpec,
    method: MethodSpec,
    rate: float,
    seed: int,
    precision: Literal["float32", "bfloat16"],
) -> RunConfig:
    own = {
        key: value
        for key in ("epochs", "horizontal_flip")
        if (value := getattr(target, key)) is not None
    }
    return RunConfig(
        backbone=spec.backbone,
        target=target.model_copy(
            update={"epochs": None, "horizontal_flip": None, "splits": None, "probe": None}
        ),
        transfers=spec.transfers,
        method=method.model_copy(update={"learning_rates": None, "targets": None}),
        learning_rate=rate,
        seed=seed,
        schedule=spec.schedule.model_copy(update=own | _own_batch(method)),
        splits=target.splits or spec.splits,
        probe=target.probe or spec.probe,
        evaluation=spec.evaluation,
        checkpoint=spec.checkpoint,
        precision=precision if spec.precision == "auto" else spec.precision,
        interpolation=spec.interpolation,
    )


def _own_batch(method: MethodSpec) -> dict[str, int]:
    return {} if method.batch_size is None else {"batch_size": method.batch_size}


def _asked(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What is not asked for changes no record, and keeps the identity that runs had before it."""
    dropped = [key for key in ("interpolation", "corruptions", "probes") if not evaluation[key]]
    dropped.append("interpolation_paths")  # those of the method are said beside
    if "corruptions" in dropped:
        dropped.append("corruption_severities")
    kept = {key: value for key, value in evaluation.items() if key not in dropped}
    drawn = {kind: DRAWN_ANEW[kind] for kind in evaluation["corruptions"] if kind in DRAWN_ANEW}
    return {**kept, "drawn_anew": drawn} if drawn else kept


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value.

    >>> content_hash({"b": 1, "a": 2}) == content_hash({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
