"""Drift signals: every key, relative changes worked by hand, rest at the baseline, undefined."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from clipdrift.probes.capture import ProbeReading
from clipdrift.probes.drift import Value, drift_signals, per_image_table

N, L, D = 6, 3, 5
BLOCKWISE = ["cls_entropy_nats", "erf95", "gini", "head_diversity", "patch_entropy_bits"]
STEMS = ["cls_entropy", "erf95", "gini", "head_diversity", "head_diversity_paper", "patch_entropy"]
ROLLOUT = ["rollout_entropy_bits", "rollout_erf95", "rollout_gini"]


def make_reading(seed: int = 0) -> ProbeReading:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) + 0.5

    return ProbeReading(
        **{name: draw(N, L) for name in BLOCKWISE},
        head_diversity_paper=draw(L),
        **{name: draw(N) for name in ROLLOUT},
        cls_activations=draw(L, N, D),
        embeddings=draw(N, 4),
    )


def flat(values: dict[str, Value]) -> list[float | None]:
    return [x for v in values.values() for x in (v if isinstance(v, list) else [v])]


def test_every_level_and_drift_has_its_key() -> None:
    levels, drift = drift_signals(make_reading(1), make_reading(2))
    names = [*BLOCKWISE, "head_diversity_paper"]
    assert set(levels) == {f"{q}{e}" for q in names for e in ("", "_last", "_per_block")} | {
        *ROLLOUT
    }
    changes = {f"{stem}{e}_pct" for stem in STEMS for e in ("", "_last", "_per_block")}
    rollout = {"rollout_entropy_pct", "rollout_erf95_pct", "rollout_gini_pct"}
    cka = {"cka_mean", "cka_last", "cka_per_block"}
    assert set(drift) == changes | rollout | cka | {"embedding_drift"}
    for name, value in {**levels, **drift}.items():
        if "per_block" in name:
            assert isinstance(value, list)
            assert len(value) == L
        else:
            assert isinstance(value, float)
    json.dumps([levels, drift], allow_nan=False)


@pytest.mark.parametrize("name", BLOCKWISE)
def test_relative_changes_by_hand(name: str) -> None:
    ones = torch.ones(N, L)
    baseline = replace(make_reading(), **{name: 2.0 * ones})
    adapted = replace(make_reading(), **{name: ones * torch.tensor([3.0, 2.0, 1.0])})
    levels, drift = drift_signals(adapted, baseline)
    stem = name.removesuffix("_nats").removesuffix("_bits")
    assert levels[name] == 2.0
    assert levels[f"{name}_last"] == 1.0
    assert levels[f"{name}_per_block"] == [3.0, 2.0, 1.0]
    assert drift[f"{stem}_pct"] == 0.0  # opposite signs cancel in the mean
    assert drift[f"{stem}_last_pct"] == -50.0
    assert drift[f"{stem}_per_block_pct"] == [50.0, 0.0, -50.0]


def test_change_of_means_and_not_mean_of_changes() -> None:
    baseline = replace(make_reading(), gini=torch.tensor([[1.0, 3.0]] * N)[:, [0, 1, 1]])
    adapted = replace(make_reading(), gini=torch.tensor([[2.0, 3.0]] * N)[:, [0, 1, 1]])
    drift = drift_signals(adapted, baseline).drift
    assert drift["gini_pct"] == pytest.approx(100 * (8 - 7) / 7, abs=1e-12)


def test_paper_diversity_and_rollout() -> None:
    baseline = replace(make_reading(), head_diversity_paper=torch.tensor([1.0, 2.0, 4.0]))
    adapted = replace(make_reading(), head_diversity_paper=torch.tensor([1.0, 1.0, 5.0]))
    for name in ROLLOUT:
        baseline = replace(baseline, **{name: torch.full((N,), 4.0)})
        adapted = replace(adapted, **{name: torch.tensor([5.0, 5.0, 5.0, 4.0, 4.0, 4.0])})
    levels, drift = drift_signals(adapted, baseline)
    assert drift["head_diversity_paper_pct"] == 0.0
    assert drift["head_diversity_paper_per_block_pct"] == [0.0, -50.0, 25.0]
    assert [levels[name] for name in ROLLOUT] == [4.5] * 3
    for name in ("rollout_entropy_pct", "rollout_erf95_pct", "rollout_gini_pct"):
        assert drift[name] == 12.5


def test_a_reading_against_itself_has_not_moved() -> None:
    copy = {f.name: getattr(make_reading(), f.name).clone() for f in fields(ProbeReading)}
    drift = drift_signals(ProbeReading(**copy), make_reading()).drift
    for name, value in drift.items():
        for number in value if isinstance(value, list) else [value]:
            if name.startswith("cka"):
                assert number == pytest.approx(1.0, abs=1e-12)
            else:
                assert number == 0.0, name


def test_cka_and_embeddings_tell_block_from_block() -> None:
    baseline = make_reading()
    moved = baseline.cls_activations.clone()
    moved[1] = torch.rand(N, D, generator=torch.Generator().manual_seed(9))
    adapted = replace(baseline, cls_activations=moved, embeddings=-baseline.embeddings)
    drift = drift_signals(adapted, baseline).drift
    first, second, third = drift["cka_per_block"]
    assert (first, third) == (pytest.approx(1.0, abs=1e-12), pytest.approx(1.0, abs=1e-12))
    assert second < 0.9
    assert drift["cka_last"] == third
    assert drift["cka_mean"] == pytest.approx((first + second + third) / 3, abs=1e-12)
    assert drift["embedding_drift"] == pytest.approx(2.0, abs=1e-12)


def test_a_baseline_of_zero_has_no_relative_change() -> None:
    zero = torch.tensor([1.0, 0.0, 0.0]).expand(N, L)
    drift = drift_signals(make_reading(), replace(make_reading(), gini=zero)).drift
    assert drift["gini_last_pct"] is None
    assert drift["gini_per_block_pct"][1:] == [None, None]
    assert drift["gini_pct"] is not None
    none = replace(make_reading(), gini=0 * zero, rollout_gini=torch.zeros(N))
    drift = drift_signals(make_reading(), none).drift
    assert (drift["gini_pct"], drift["rollout_gini_pct"]) == (None, None)


def test_a_block_without_variance_leaves_no_mean_cka() -> None:
    still = make_reading().cls_activations.clone()
    still[0] = 0.1
    drift = drift_signals(make_reading(), replace(make_reading(), cls_activations=still)).drift
    assert drift["cka_per_block"][0] is None
    assert drift["cka_mean"] is None
    assert drift["cka_last"] is not None


def test_a_diverged_model_is_undefined_everywhere() -> None:
    sick = {f.name: getattr(make_reading(), f.name) * math.nan for f in fields(ProbeReading)}
    levels, drift = drift_signals(ProbeReading(**sick), make_reading())
    assert set(flat(levels)) == set(flat(drift)) == {None}
    table = per_image_table(ProbeReading(**sick), make_reading())
    assert all(set(v) == {None} for k, v in table.items() if not k.endswith("_baseline"))


def test_one_image_table() -> None:
    adapted, baseline = make_reading(1), make_reading(2)
    table = per_image_table(adapted, baseline)
    levels = [f"{q}{e}" for q in BLOCKWISE for e in ("", "_last")] + ROLLOUT
    expected = [f"{name}{e}" for e in ("", "_baseline") for name in levels] + ["embedding_drift"]
    assert sorted(table) == sorted(expected)
    assert {len(column) for column in table.values()} == {N}
    for name in BLOCKWISE:
        values = getattr(adapted, name).double()
        assert table[name] == pytest.approx(values.mean(dim=1).tolist(), abs=1e-12)
        assert table[f"{name}_last"] == values[:, -1].tolist()
        assert table[f"{name}_last_baseline"] == getattr(baseline, name)[:, -1].tolist()
    signals = drift_signals(adapted, baseline)
    for name, value in signals.levels.items():
        if name in table:  # the mean over images is the level
            assert sum(v or 0.0 for v in table[name]) / N == pytest.approx(value, abs=1e-12)
    assert per_image_table(adapted, adapted)["embedding_drift"] == [0.0] * N


@pytest.mark.parametrize("compare", [drift_signals, per_image_table])
def test_readings_of_different_probe_sets(compare: Callable[..., object]) -> None:
    other = replace(make_reading(), cls_activations=torch.ones(L, N + 1, D))
    with pytest.raises(ValueError, match=r"got \[3, 6, 5\] against \[3, 7, 5\]. Read both on one"):
        compare(make_reading(), other)
