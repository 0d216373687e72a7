"""The forecast against second ways: another solver, leaving out by hand, simulated coverage."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_process import command
from report_study import study_folder
from scipy.optimize import lsq_linear
from synthetic_records import synthetic_records

from clipdrift.analysis.forecasting import check_asked, forecast
from clipdrift.analysis.questions import early_warning
from clipdrift.analysis.questions.forecast_trial import next_lower_rate, validation
from clipdrift.analysis.questions.held_out import hold_out
from clipdrift.analysis.questions.lessons import Cell, Lessons, lessons
from clipdrift.analysis.statistics.forecast_fit import fit
from clipdrift.analysis.statistics.forecast_model import (
    KEPT,
    SIGNALS,
    weighted_quantile,
)
from clipdrift.errors import RecordError, SpecError
from clipdrift.records import StudyFolder
from clipdrift.records.imported import import_runs

Arrays = tuple[np.ndarray, np.ndarray]


def another_ridge(moved: np.ndarray, kept: np.ndarray, penalty: float, at: np.ndarray) -> object:
    """The same problem given to scipy's bounded least squares, intercept as a free column."""
    scale = moved.std(axis=0)
    design = np.column_stack([np.ones(len(kept)), moved / scale])
    shrink = np.sqrt(len(kept) * penalty) * np.eye(moved.shape[1])
    padded = np.vstack([design, np.column_stack([np.zeros(len(shrink)), shrink])])
    ends = ([-np.inf] * (1 + len(scale)), [np.inf] + [0.0] * len(scale))
    found = lsq_linear(padded, np.r_[kept, np.zeros(len(scale))], ends, method="bvls", tol=1e-14)
    raw = np.column_stack([np.ones(len(at)), at / scale]) @ found.x
    return np.clip(raw, kept.min(), kept.max())


def made_up(n: int, rng: np.random.Generator) -> Arrays:
    moved = rng.gamma(2.0, 1.0, (n, 5))
    return moved, 100 - moved @ np.array([6.0, 0.0, 3.0, 0.0, 1.0]) + 4 * rng.normal(size=n)


def test_left_out_residuals_are_those_of_another_solver() -> None:
    moved, kept = made_up(24, np.random.default_rng(1))
    cells = np.repeat(np.arange(12), 2)
    model = fit(moved, kept, cells)
    for cell in range(12):
        out = cells == cell
        told = another_ridge(moved[~out], kept[~out], model.penalty, moved[out])
        found = np.array(model.residuals)[out]
        assert found == pytest.approx(np.abs(told - kept[out]), rel=1e-6, abs=1e-7)
    assert min(model.line.slopes) >= 0
    assert model.weights == pytest.approx([1 / 26] * 24, rel=1e-12)


def test_the_interval_is_cv_plus_by_hand() -> None:
    """One run a cell: the ceil(level (n + 1))-th smallest of line + residual, and its mirror."""
    moved, kept = made_up(15, np.random.default_rng(2))
    model = fit(moved, kept, np.arange(15))
    new = np.random.default_rng(3).gamma(2.0, 1.0, (4, 5))
    found = model.forecast(new, 0.8)
    rank = math.ceil(0.8 * 16)
    for j, row in enumerate(new):
        at = [model.lines[fold].at(row[None])[0] for fold in model.folds]
        high = sorted(a + r for a, r in zip(at, model.residuals, strict=True))[rank - 1]
        low = sorted((a - r for a, r in zip(at, model.residuals, strict=True)), reverse=True)
        assert found.high[j] == pytest.approx(high, rel=1e-12)
        assert found.low[j] == pytest.approx(low[rank - 1], rel=1e-12)
    # Sixteen places, the last of them at infinity: 95 % cannot be bounded by 15 runs.
    assert np.isinf(model.forecast(new, 0.95).high).all()


def test_many_runs_at_a_time_are_forecast_as_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moved, kept = made_up(40, np.random.default_rng(5))
    model = fit(moved[:30], kept[:30], np.arange(30) // 2)
    whole = model.forecast(moved, 0.8)
    for values in (1, 100, 30 * 40):  # one run at a time; three; all of them
        monkeypatch.setattr("clipdrift.analysis.statistics.forecast_model.MAX_VALUES", values)
        for ours, theirs in zip(model.forecast(moved, 0.8), whole, strict=True):
            assert ours.tolist() == theirs.tolist()


def test_left_out_residuals_have_the_digits_of_runs_forecast_alone() -> None:
    moved, kept = made_up(60, np.random.default_rng(6))
    model = fit(moved, kept, np.arange(60) // 3)
    alone = [model.lines[f].at(row[None])[0] for f, row in zip(model.folds, moved, strict=True)]
    assert model.residuals == np.abs(np.array(alone) - kept).tolist()


def test_the_interval_covers_new_cells_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    hits = []
    for _ in range(60):
        moved, kept = made_up(70, rng)
        model = fit(moved[:30], kept[:30], np.arange(30))
        found = model.forecast(moved[30:], 0.8)
        hits.append(((found.low <= kept[30:]) & (kept[30:] <= found.high)).mean())
    # Theory: at least 0.6; about 0.8. The standard error of this mean is about 0.012.
    assert 0.75 < float(np.mean(hits)) < 0.9


def test_weighted_quantile_counts_the_missing_cell_as_infinite() -> None:
    values = np.array([[3.0, 1.0], [1.0, 5.0], [2.0, 2.0]])
    weights = np.array([0.2, 0.3, 0.25])
    assert weighted_quantile(values, weights, 0.3).tolist() == [1.0, 2.0]
    assert weighted_quantile(values, weights, 0.55).tolist() == [2.0, 5.0]
    assert weighted_quantile(values, weights, 0.8).tolist() == [np.inf, np.inf]


def data(kept: list[float] | None = None) -> Lessons:
    """Sixteen cells of two seeds: retention falls with the rate, drift with it."""
    rng = np.random.default_rng(5)
    cells = [
        Cell("study", "clip", target, method, rate)
        for target in ("a", "b")
        for method in ("full_ft", "lora")
        for rate in (1e-6, 1e-5, 1e-4, 1e-3)
        for _ in range(2)
    ]
    dose = np.array([math.log10(c.learning_rate) + 6 - 0.5 * (c.method == "lora") for c in cells])
    size = np.clip(dose[:, None], 0, None) * rng.uniform(0.9, 1.1, (len(cells), 6))
    read = size * np.array([-1, 1, 1, 1, 1, -1]) + np.array([1, 0, 0, 0, 0, 100])
    values = 100 - 12 * dose + rng.normal(size=len(cells)) if kept is None else np.array(kept)
    ids = [f"run-{i}" for i in range(len(cells))]
    return Lessons(cells, ids, list(SIGNALS), read, values, ["c"], 0)


@pytest.mark.parametrize("split", ["cell", "target", "method"])
def test_a_left_out_group_has_no_say_in_its_own_forecast(split: str) -> None:
    whole = data()
    groups = whole.labels(*Cell._fields) if split == "cell" else whole.labels(split)
    before = hold_out(whole, split, 0.8)
    out = groups == 0
    changed = np.where(out, whole.kept + 50, whole.kept)
    after = hold_out(whole._replace(kept=changed), split, 0.8)
    for name in ("kept",) if split == "method" else ("kept", "low", "high"):
        assert np.array_equal(
            getattr(before.forecast, name)[out], getattr(after.forecast, name)[out]
        )
        assert not np.array_equal(
            getattr(before.forecast, name)[~out], getattr(after.forecast, name)[~out]
        )


def test_baselines_errors_and_coverage_are_those_by_hand() -> None:
    whole = data()
    held = hold_out(whole, "target", 0.8)
    row = validation(whole, held)
    lower = next_lower_rate(whole)
    for i, cell in enumerate(whole.cells):
        same = [
            (other.learning_rate, whole.kept[j])
            for j, other in enumerate(whole.cells)
            if (other.target, other.method) == (cell.target, cell.method)
            and other.learning_rate < cell.learning_rate
        ]
        if not same:
            assert math.isnan(lower[i])
            continue
        nearest = max(rate for rate, _ in same)
        assert lower[i] == pytest.approx(np.mean([k for rate, k in same if rate == nearest]))
    known = np.isfinite(lower)
    assert (row.n, row.n_lower_rate) == (32, 24)
    assert row.mae_lower_rate == pytest.approx(np.abs(lower - whole.kept)[known].mean())
    means = [
        whole.kept[[c.target != own.target for c in whole.cells]].mean() for own in whole.cells
    ]
    assert row.mae_mean == pytest.approx(np.abs(means - whole.kept).mean())
    inside = (held.forecast.low <= whole.kept) & (whole.kept <= held.forecast.high)
    assert row.coverage == inside.mean()
    assert (row.against_mean, row.against_lower_rate) == ("better", "better")
    # Retention after the epoch is the last column as it was read; a tenth of the way to the end.
    assert row.mae_epoch_retention == pytest.approx(np.abs(whole.values[:, 5] - whole.kept).mean())
    assert row.against_epoch_retention == "better"
    assert hold_out(whole, "backbone", 0.8).reason == "one backbone in these records"


def test_retention_that_is_final_after_the_epoch_cannot_be_beaten() -> None:
    whole = data()
    values = np.column_stack([whole.values[:, :5], whole.kept])
    settled = whole._replace(values=values)
    row = validation(settled, hold_out(settled, "cell", 0.8))
    assert row.mae_epoch_retention == 0
    assert row.against_epoch_retention in ("worse", "no clear difference")
    drifts = whole._replace(signals=whole.signals[:5], values=whole.values[:, :5])
    unread = validation(drifts, hold_out(drifts, "cell", 0.8))
    assert (unread.mae_epoch_retention, unread.against_epoch_retention) == (None, None)
    assert unread.reason == "most runs have no retention after the early epoch"
    assert unread.mae > row.mae


def test_of_a_method_or_backbone_it_has_not_learned_from_it_gives_no_interval() -> None:
    whole = data()
    halves = [cell._replace(backbone=f"clip-{cell.target}") for cell in whole.cells]
    whole = whole._replace(cells=halves)
    told = forecast(whole, after_epoch=1)
    for row in told["validation"]:
        refused = row.split in ("method", "backbone")
        assert (row.coverage is None) is (row.median_width is None) is refused
        words = f"no interval of a {row.split} that the forecast has not learned from"
        assert row.reason == (words if refused else None)
        assert row.n == 32
        assert row.mae > 0
    said = early_warning.verdict(told["validation"], 0.8)
    assert said.endswith("it gives no interval on a left-out method or backbone.")


def test_a_forecast_of_noise_does_not_beat_anything() -> None:
    noise = data(np.random.default_rng(6).uniform(50, 100, 32).tolist())
    row = validation(noise, hold_out(noise, "cell", 0.8))
    assert row.against_mean in ("worse", "no clear difference")
    assert abs(row.spearman_within) < 0.6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    records = synthetic_records(blocks=1, linear_probe=True)
    return study_folder(tmp_path_factory.mktemp("forecast") / "study", records)


def test_lessons_are_early_drift_and_the_least_of_final_retentions(folder: StudyFolder) -> None:
    found, faults = lessons([folder], after_epoch=1)
    records = {record.run_id: record for record in folder.records()[0]}
    assert (len(found.kept), len(set(found.cells)), faults) == (48, 16, [])
    for run_id, moved, kept in zip(found.run_ids, found.moved, found.kept, strict=True):
        record = records[run_id]
        drift = record.history[1].drift
        rest = {"cka_mean": 1.0}
        lost = 100 - min(r.retention_pct or 0 for r in record.history[1].transfer.values())
        sizes = [abs((drift[s] or 0) - rest.get(s, 0)) for s in SIGNALS if s != KEPT]
        assert moved == pytest.approx([*sizes, lost])
        assert kept == min(r.retention_pct or 0 for r in record.result.transfer.values())
        assert record.role == "matched"


def test_the_rows_of_an_analysis_are_those_of_the_command(folder: StudyFolder) -> None:
    found, _ = lessons([folder], after_epoch=1)
    told = forecast(found, after_epoch=1)
    judged = early_warning.rows(folder.records()[0])
    assert [row.split for row in judged] == ["cell", "target", "method", "backbone"]
    for row, other in zip(judged, told["validation"], strict=True):
        assert replace(row, backbone=None, run_ids=[]) == other
        assert len(row.run_ids) == row.n
    both = [*folder.records()[0], *synthetic_records(blocks=1, backbone="other", rng_seed=3)]
    crossed = early_warning.rows(both)
    assert [row.n for row in crossed if row.split == "backbone"] == [48, 48]
    assert next(row for row in crossed if row.split == "method") == judged[2]
    few = [record for record in folder.records()[0] if record.method == "lora"][:12]
    assert early_warning.rows(few) == []


@pytest.mark.slow
def test_of_several_folders_what_all_have_counts(folder: StudyFolder, tmp_path: Path) -> None:
    names = sorted(folder.records()[0][0].result.transfer)
    assert len(names) == 2
    folders = {}
    for kept in names:
        records = synthetic_records(blocks=1, rng_seed=5)
        for record in records:
            record.result.transfer = {kept: record.result.transfer[kept]}
        folders[kept] = study_folder(tmp_path / kept, records)
    found, _ = lessons([folder, folders[names[0]]], after_epoch=1)
    assert found.transfers == [names[0]]
    assert len(found.run_ids) == 96
    with pytest.raises(RecordError) as caught:
        lessons(list(folders.values()), after_epoch=1)
    rule = (
        "expected a transfer dataset with retention in every folder, got none that all have among"
    )
    assert f"{rule} {', '.join(names)}. Name folders that share" in str(caught.value)


def test_too_few_runs_unknown_names_and_nonsense_are_refused(
    folder: StudyFolder, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=r"--transfer: expected .* got 'cifar1'. Did you mean 'cif"):
        lessons([folder], after_epoch=1, transfers=["cifar1"])
    with pytest.raises(RecordError) as caught:
        lessons([folder], after_epoch=2)
    assert str(caught.value) == (
        f"{folder.path}: expected at least 8 cells of matched methods with drift or retention "
        "after epoch 2, a later epoch and a final retention, got 0 cells (0 of 48 finished runs; "
        "missing: a later epoch in 48). Name more study folders, choose an earlier epoch, or run "
        "a wider grid."
    )
    with pytest.raises(SpecError) as nonsense:
        check_asked(0, 0.8)
    assert [fault.where for fault in nonsense.value.faults] == ["--after-epoch", "--level"]


def imported(path: Path, *, columns: str = "cka_mean,cifar10") -> StudyFolder:
    """The made-up study as a table of runs, with the last epoch and these columns of epoch 1."""
    mapped = {
        "cka_mean": "epoch1.drift.cka_mean",
        "cls_entropy_pct": "epoch1.drift.cls_entropy_pct",
        "cifar10": "epoch1.transfer.cifar10.retention_pct",
    }
    names = [name for name in columns.split(",") if name]
    keys = ["target", "method", "lr", "seed"]
    lines = [",".join([*keys, "kept", *(f"e1_{name}" for name in names)])]
    for run in synthetic_records(blocks=1):
        early = run.history[1]
        read = {**early.drift, "cifar10": early.transfer["cifar10"].retention_pct}
        values = [run.target, run.method, run.learning_rate, run.seed]
        values += [run.result.transfer["cifar10"].retention_pct, *(read[name] for name in names)]
        lines.append(",".join(map(str, values)))
    pairs = [*((key, key) for key in keys), ("kept", "transfer.cifar10.retention_pct")]
    pairs += [(f"e1_{name}", mapped[name]) for name in names]
    path.mkdir()
    (path / "runs.csv").write_text("\n".join(lines))
    (path / "map.yaml").write_text("columns:\n" + "".join(f"  {a}: {b}\n" for a, b in pairs))
    import_runs(path / "runs.csv", path / "map.yaml", path / "study")
    return StudyFolder(path / "study")


def test_a_table_with_one_early_epoch_can_be_learned_from(tmp_path: Path) -> None:
    found, _ = lessons([imported(tmp_path / "a")], after_epoch=1)
    assert (found.signals, len(found.kept)) == (["cka_mean", KEPT], 48)
    told = forecast(found, after_epoch=1)
    (by_cell, *_) = told["validation"]
    assert by_cell.mae < by_cell.mae_mean
    assert found.signals == ["cka_mean", KEPT]
    for columns, missing in (
        ("", "a reading after epoch 1 in 48"),
        ("cls_entropy_pct", None),
    ):
        folder = imported(tmp_path / f"b{len(columns)}", columns=columns)
        if missing is None:
            assert lessons([folder], after_epoch=1)[0].signals == ["cls_entropy_pct"]
            continue
        with pytest.raises(RecordError) as caught:
            lessons([folder], after_epoch=1)
        assert f"got 0 cells (0 of 48 finished runs; missing: {missing})" in str(caught.value)
        assert (
            "Import the table with its columns of epoch 1 mapped to 'epoch1.drift.<signal>' and "
            "'epoch1.transfer.<name>.retention_pct'." in str(caught.value)
        )


@pytest.mark.slow
def test_the_command_validates_without_torch(folder: StudyFolder) -> None:
    done = command("forecast", folder.path)
    assert (done.returncode, done.stderr.strip()) == (0, "False")
    for text in ("48 runs in 16 cells", "next lower rate", "The forecast "):
        assert text in done.stdout
    assert "Left out by backbone: one backbone in these records." in done.stdout
