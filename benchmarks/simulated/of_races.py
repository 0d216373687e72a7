"""Made-up grids with readings after epochs: learning curves whose form the race does not assume.

Accuracy of a run rises by a saturating exponential in rate and epochs and is damaged at high rates
(a logistic); retention falls as exp(-(rate / tolerance)^power), more with every epoch. Methods
differ in all of these, cells beside that, seeds shift all their runs, and every reading is a count
of images.
"""

from __future__ import annotations

import numpy as np

from clipdrift.racing.contest import Entry
from clipdrift.records import EpochReading, RunRecord
from clipdrift.records.readings import Result
from clipdrift.records.transfer import TransferReading

EPOCHS, N_VAL, N_EARLY, N_TRANSFER = 5, 150, 200, 1000
BASELINE = 0.6


def made_up(
    number: int, n_seeds: int, *, n_methods: int = 4, n_rates: int = 5
) -> tuple[list[Entry], dict[str, RunRecord]]:
    """A grid of one target with the records of all of its runs; `number` draws it."""
    rng = np.random.default_rng([number, 22])
    rates = 1e-5 * 3.0 ** np.arange(n_rates)
    seeds = [int(seed) for seed in rng.normal(0, 1, n_seeds).argsort()]
    of_seed = rng.normal(0, 0.15, (2, n_seeds))
    entries, records = [], {}
    for m in range(n_methods):
        best, speed = rng.uniform(0.75, 0.95), 10 ** rng.uniform(4.2, 5.0)
        tolerance, power = 10 ** rng.uniform(-3.6, -2.6), rng.uniform(0.8, 1.6)
        for rate in rates:
            own = rng.normal(0, 0.1, 2)
            for s, seed in enumerate(seeds):
                noise = own + of_seed[:, s] + rng.normal(0, 0.15, 2)
                run_id = f"m{m}-lr{rate:.3g}-seed{seed}"
                entries.append(Entry(run_id, "made up", f"m{m}", float(rate), seed, EPOCHS))
                curve = [
                    _reading(rng, epoch, rate, (best, speed, tolerance, power), noise)
                    for epoch in range(EPOCHS + 1)
                ]
                last = _reading(
                    rng, EPOCHS, rate, (best, speed, tolerance, power), noise, n=N_TRANSFER
                )
                whole = last.model_dump(include={"val_accuracy", "transfer"})
                records[run_id] = RunRecord(
                    run_id=run_id, identity="i" * 64, status="finished", study="made up",
                    backbone="none", target="made up", method=f"m{m}", learning_rate=float(rate),
                    seed=seed, history=curve, result=Result(**whole),
                )  # fmt: skip
    return entries, records


def _reading(
    rng: np.random.Generator,
    epoch: int,
    rate: float,
    method: tuple[float, float, float, float],
    noise: np.ndarray,
    n: int = N_EARLY,
) -> EpochReading:
    best, speed, tolerance, power = method
    learned = 1 - np.exp(-speed * rate * epoch * np.exp(noise[0]))
    damage = 1 / (1 + (rate / (20 * tolerance)) ** 2)
    accuracy = 0.1 + (best - 0.1) * learned * damage
    kept = np.exp(-((rate / tolerance) ** power) * np.exp(3 * noise[1]) * (epoch / EPOCHS) ** 0.7)
    hits = rng.binomial(n, np.clip(BASELINE * kept, 0, 1))
    transfer = TransferReading(
        accuracy=hits / n, baseline_accuracy=BASELINE, retention_pct=100 * hits / n / BASELINE
    )
    value = rng.binomial(N_VAL, accuracy) / N_VAL
    return EpochReading(epoch=epoch, step=epoch, val_accuracy=value, transfer={"world": transfer})
