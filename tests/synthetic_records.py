"""Made-up run records with the structure of a real study: every field filled, known directions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from clipdrift.records import EpochReading, RunRecord
from clipdrift.records.correct import Correct
from clipdrift.records.readings import Result
from clipdrift.records.transfer import TransferReading
from clipdrift.spec import content_hash

RATES = (3e-6, 1e-5, 3e-5, 1e-4)
SEEDS = (7, 11, 19)
TARGETS = ("landcover", "digits")
METHODS = ("full_ft", "lora")
TRANSFERS = {"shapes100": (100, 0.87), "cifar10": (10, 0.62)}
LEVELS = {
    "cls_entropy_nats": 3.68,
    "erf95": 0.86,
    "gini": 0.31,
    "head_diversity": 0.075,
    "patch_entropy_bits": 4.8,
    "rollout_entropy_bits": 5.6,
    "rollout_erf95": 0.93,
    "rollout_gini": 0.11,
}
FACTORS = ("backbone", "data", "image_order", "head_init", "schedule", "probe_set")


def synthetic_records(
    *,
    targets: tuple[str, ...] = TARGETS,
    methods: tuple[str, ...] = METHODS,
    rates: tuple[float, ...] = RATES,
    seeds: tuple[int, ...] = SEEDS,
    backbone: str = "mini-clip",
    linear_probe: bool = False,
    blocks: int = 4,
    epochs: int = 2,
    rng_seed: int = 0,
) -> list[RunRecord]:
    """A crossed study in which a higher rate moves the model further and costs retention.

    `lora` moves less than `full_ft` at the same rate, and underfits at the lowest. Numbers depend
    on the run and `rng_seed` alone, not on which other runs are asked for.

    Args:
        linear_probe: add a reference method at one rate of its own, 1e-3.
    """
    cells = [(t, m, "matched", rate) for t in targets for m in methods for rate in rates]
    if linear_probe:
        cells += [(target, "linear_probe", "reference", 1e-3) for target in targets]
    return [
        _record(backbone, *cell, seed, blocks=blocks, epochs=epochs, rng_seed=rng_seed)
        for cell in cells
        for seed in seeds
    ]


def _record(
    backbone: str,
    target: str,
    method: str,
    role: Any,
    rate: float,
    seed: int,
    *,
    blocks: int,
    epochs: int,
    rng_seed: int,
) -> RunRecord:
    key = [backbone, target, method, rate, seed]
    identity = content_hash(key)
    rng = np.random.default_rng([rng_seed, int(identity[:8], 16)])
    dose = math.log10(rate) + 6 - {"lora": 0.8, "linear_probe": 9.0}.get(method, 0.0)
    history = [
        EpochReading(
            epoch=epoch,
            step=10 * epoch,
            train_loss=2.0 / (1 + epoch),
            train_seconds=1.5 * epoch,
            **_reading(rng, dose * epoch / epochs, blocks),
        )
        for epoch in range(epochs + 1)
    ]
    final = _reading(rng, dose, blocks)
    accuracy = final["val_accuracy"]
    return RunRecord(
        run_id=f"{target}-{method}-lr{rate!r}-seed{seed}-{identity[:8]}",
        identity=identity,
        status="finished",
        study="synthetic",
        backbone=backbone,
        target=target,
        method=method,
        role=role,
        learning_rate=rate,
        seed=seed,
        fingerprints={f: content_hash([f, backbone, target, seed])[:16] for f in FACTORS},
        selected_epoch=epochs,
        history=history,
        result=Result(
            **final, test_accuracy=_fraction(accuracy - 0.01 + 0.004 * rng.normal()), test_loss=0.3
        ),
        timing={"wall_seconds": 12.0},
    )


def _reading(rng: np.random.Generator, dose: float, blocks: int) -> dict[str, Any]:
    moved = max(dose, 0.0)
    change = {name: float(-1.5 * moved + 0.3 * rng.normal()) for name in LEVELS}
    drift = {f"{_stem(name)}_pct": value for name, value in change.items()}
    per_block = {
        name: [value * (b + 1) / blocks for b in range(blocks)] for name, value in drift.items()
    }
    cka = [_fraction(1 - 0.05 * moved * (b + 1) - 0.01 * rng.random()) for b in range(blocks)]
    drift |= {
        "cka_mean": float(np.mean(cka)),
        "embedding_drift": 0.02 * moved + 0.002 * float(rng.random()),
        "weight_drift_rel": float(10 ** (-3 + 0.6 * moved + 0.05 * rng.normal())),
        "projection_drift_rel": float(10 ** (-3 + 0.5 * moved + 0.05 * rng.normal())),
    }
    return {
        "val_accuracy": _fraction(0.96 - 0.4 * math.exp(-2.5 * moved) + 0.006 * rng.normal()),
        "transfer": {name: _transfer(rng, name, moved) for name in TRANSFERS},
        "levels": {name: base * (1 + change[name] / 100) for name, base in LEVELS.items()},
        "drift": drift,
        "drift_per_block": {**per_block, "cka": cka},
    }


def _transfer(rng: np.random.Generator, name: str, moved: float) -> TransferReading:
    n_classes, baseline = TRANSFERS[name]
    accuracy = _fraction(baseline * (1 - 0.25 * moved + 0.02 * rng.normal()))
    return TransferReading(
        accuracy=accuracy,
        baseline_accuracy=baseline,
        retention_pct=100 * accuracy / baseline,
        chance_corrected_retention_pct=100
        * (accuracy - 1 / n_classes)
        / (baseline - 1 / n_classes),
        delta_accuracy_pp=100 * (accuracy - baseline),
        n_images=1000,
        n_classes=n_classes,
    )


def with_images(record: RunRecord, n: int) -> RunRecord:
    """The same run, each accuracy of its result rounded to `n` images of which it keeps the bits.

    Some images are harder than others in all runs; the baseline of a set is the same in all.
    """
    result = record.result
    transfer, correct = {}, {}
    for name, reading in result.transfer.items():
        assert reading.accuracy is not None
        assert reading.baseline_accuracy is not None
        now = _right(reading.accuracy, n, name, record.run_id)
        before = _right(reading.baseline_accuracy, n, name, "untouched")
        a, b, c = now.accuracy, before.accuracy, 1 / (reading.n_classes or 1)
        transfer[name] = TransferReading(
            accuracy=a,
            baseline_accuracy=b,
            retention_pct=100 * a / b,
            chance_corrected_retention_pct=100 * (a - c) / (b - c),
            delta_accuracy_pp=100 * (a - b),
            n_images=n,
            n_classes=reading.n_classes,
            chance=c,
        )
        correct |= {f"transfer.{name}.accuracy": now, f"transfer.{name}.baseline_accuracy": before}
    for name in ("val_accuracy", "test_accuracy"):
        correct[name] = _right(getattr(result, name), n, name + record.target, record.run_id)
    own = {name: correct[name].accuracy for name in ("val_accuracy", "test_accuracy")}
    body = {**dict(result), **own, "test_n_images": n, "transfer": transfer, "correct": correct}
    return record.model_copy(update={"result": Result(**body)})


def _right(accuracy: float, n: int, images: str, run: str) -> Correct:
    hard, own = (
        np.random.default_rng(int(content_hash(key)[:8], 16)).normal(size=n)
        for key in ([images], [images, run])
    )
    rank = np.argsort(np.argsort(hard + 0.5 * own))
    return Correct.of(rank < round(accuracy * n))


def _stem(name: str) -> str:
    return name.removesuffix("_nats").removesuffix("_bits")


def _fraction(value: float) -> float:
    return float(np.clip(value, 0.0, 1.0))


__all__ = [
    *("FACTORS", "METHODS", "RATES", "SEEDS", "TARGETS", "TRANSFERS"),
    *("synthetic_records", "with_images"),
]
