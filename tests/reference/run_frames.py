"""Made-up run frames for the tests of analyses: the columns of `runs_frame`, known structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

RATES = (1e-6, 5e-6, 1e-5, 5e-5)
SEEDS = (7, 11, 19, 42, 123)


def made_up_runs(
    *,
    rng_seed: int = 0,
    targets: tuple[str, ...] = ("eurosat", "pets"),
    methods: tuple[str, ...] = ("full_ft", "lora"),
    rates: tuple[float, ...] = RATES,
    seeds: tuple[int, ...] = SEEDS,
    n_extra: int = 2,
    backbone: str = "clip",
) -> pd.DataFrame:
    """A full crossed study in which weight movement drives loss of retention, with noise."""
    rng = np.random.default_rng(rng_seed)
    rows = []
    for target in targets:
        for j, method in enumerate(methods):
            for k, rate in enumerate(rates):
                for seed in seeds:
                    rows.append(
                        {
                            "run_id": f"{target}-{method}-lr{rate!r}-seed{seed}-{backbone}",
                            "backbone": backbone,
                            "target": target,
                            "method": method,
                            "role": "matched",
                            "learning_rate": rate,
                            "seed": seed,
                            **_metrics(rng, dose=k + 1 - 0.8 * j, n_extra=n_extra),
                        }
                    )
    return pd.DataFrame(rows)


def _metrics(rng: np.random.Generator, *, dose: float, n_extra: int) -> dict[str, float]:
    moved = 10 ** (-4 + 0.5 * dose + 0.05 * rng.normal())
    cka = 1 - 0.05 * dose - 0.02 * abs(rng.normal())
    accuracy = 0.95 - 0.5 * float(np.exp(-1.5 * dose)) + 0.005 * rng.normal()
    retention = 100 - 15 * dose + 3 * rng.normal()
    signals = {
        "drift.weight_drift_rel": moved,
        "drift.cka_mean": cka,
        "drift.cls_entropy_pct": float(-dose + rng.normal()),
        **{f"drift.extra_{i}": float(rng.normal()) for i in range(n_extra)},
    }
    early = {f"epoch1.{name}": value * rng.uniform(0.3, 0.6) for name, value in signals.items()}
    return {
        "val_accuracy": accuracy,
        "test_accuracy": accuracy - 0.01,
        "transfer.cifar100.retention_pct": retention,
        "transfer.cifar10.retention_pct": retention + 5 + rng.normal(),
        "epoch1.val_accuracy": accuracy - 0.1 + 0.01 * rng.normal(),
        **signals,
        **early,
    }


def without_each_seed(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The frame less the runs of one seed, for each seed in order."""
    return [frame[frame["seed"] != seed] for seed in sorted(set(frame["seed"]))]


def t_by_leaving_out(whole: float, left_out: Sequence[float]) -> tuple[float, float, float]:
    """Ends of the 95 % interval and p, from the statistic on all seeds and without each of them.

    By pseudo-values, Tukey's own way: g * whole - (g - 1) * left_out are treated as a sample.
    """
    g = len(left_out)
    pseudo = g * whole - (g - 1) * np.array(left_out)
    half = stats.t.ppf(0.975, g - 1) * stats.sem(pseudo)
    return whole - half, whole + half, float(2 * stats.t.sf(abs(whole) / stats.sem(pseudo), g - 1))


def shuffled(frame: pd.DataFrame, rng_seed: int = 1) -> pd.DataFrame:
    return frame.sample(frac=1, random_state=rng_seed)
