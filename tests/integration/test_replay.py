"""A study held against published figures: verdicts, headlines, missing cells, the words said."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from command_process import command, command_here

from clipdrift.analysis.questions import probe_sensitivity
from clipdrift.analysis.questions.reproduction import published
from clipdrift.analysis.replay import replay
from clipdrift.errors import RecordError, SpecError, StudyFolderError
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.records.imported import import_runs
from clipdrift.records.readings import EpochReading, Result
from clipdrift.records.transfer import TransferReading

CELLS = published()["paper-80"]["cells"]
SEEDS = (7, 11, 19, 42, 123)
MAP = """\
columns:
  {model: backbone, data: target, how: method, rate: lr, s: seed, test: test_accuracy,
   c100: transfer.cifar100.accuracy, base: transfer.cifar100.baseline_accuracy,
   entropy: drift.cls_entropy_pct}
units: {test_accuracy: fraction, transfer: fraction}
"""


def imported(folder: Path, *, shift: float = 0.0, cells: list[list[object]] = CELLS) -> StudyFolder:
    """A CSV of the published means, one cell's accuracy shifted, brought in as a user would."""
    lines = ["model,data,how,rate,s,test,c100,base,entropy"]
    for target, method, rate, test, entropy, cifar in cells:
        moved = float(str(test)) + (
            shift if (target, method, rate) == ("pets", "lora", 1e-5) else 0
        )
        for seed in SEEDS:
            row = ["ViT-B/32", target, method, rate, seed, moved, cifar, 0.61, entropy]
            lines.append(",".join(map(str, row)))
    (folder / "runs.csv").write_text("\n".join(lines))
    (folder / "map.yaml").write_text(MAP)
    import_runs(folder / "runs.csv", folder / "map.yaml", folder / "out")
    return StudyFolder(folder / "out")


def test_imported_runs_are_held_against_every_cell_and_headline(tmp_path: Path) -> None:
    found = replay(imported(tmp_path), "paper-80")
    kinds = [row.kind for row in found.rows]
    assert Counter(kinds) == {
        "cell": 50, "grid_mean": 4, "nearest_cell": 6, "untouched": 5, "upper_bound": 1,
    }  # fmt: skip
    read = {"test_accuracy", "last_epoch.drift.cls_entropy_pct", "transfer.cifar100.accuracy"}
    read.add("transfer.cifar100.baseline_accuracy")
    assert {row.metric for row in found.rows if row.diff is not None} == read
    assert {row.metric for row in found.rows if row.within} == read
    for row in found.rows:
        if row.metric not in read:
            assert row.reason == f"no {row.metric} in these records"
    headlines = {(r.target, r.method): r.ours for r in found.rows if r.kind == "grid_mean"}
    assert headlines == pytest.approx(
        {
            ("eurosat", "full_ft"): (0.1590 + 0.1752 + 0.1001 + 0.0168) / 4,
            ("eurosat", "lora"): (0.5626 + 0.4464 + 0.4169 + 0.3793) / 4,
            ("pets", "full_ft"): (0.1896 + 0.0638 + 0.0501 + 0.0383) / 4,
            ("pets", "lora"): (0.6024 + 0.6057 + 0.5934 + 0.5191) / 4,
        },
        rel=1e-12,
    )
    assert (found.faults, found.leaks) == ([], ())


def test_leaks_of_measured_records_are_said(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.create()
    record = RunRecord(
        run_id="pets-lora", identity="00", status="finished", study="mine", backbone="clip",
        target="pets", method="lora", learning_rate=1e-5, seed=7, selected_epoch=1,
        leaks=["checkpoint selected on the test part"],
        result=Result(test_accuracy=0.9, transfer={"cifar100": TransferReading(accuracy=0.59)}),
    )  # fmt: skip
    atomic_write(folder.record_path(record.run_id), record.to_json())
    found = replay(folder, "paper-80")
    assert found.leaks == ("checkpoint selected on the test part",)
    assert {row.metric for row in found.rows if row.diff is not None and row.learning_rate} == {
        "test_accuracy",
        "transfer.cifar100.accuracy",
    }


@pytest.mark.parametrize(
    ("kept", "epochs", "expected"), [(1, 3, -3.0), (3, 3, -3.0), (None, 1, -0.4)]
)
def test_entropy_is_that_of_the_last_epoch_whichever_was_kept(
    tmp_path: Path, kept: int | None, epochs: int, expected: float
) -> None:
    """Where no epoch was kept, as in an import, the result stands in."""
    folder = StudyFolder(tmp_path)
    folder.create()
    for seed in (7, 11):
        record = RunRecord(
            run_id=f"pets-lora-{seed}", identity="00", status="finished", study="mine",
            backbone="clip", target="pets", method="lora", learning_rate=1e-5, seed=seed,
            selected_epoch=kept,
            history=[
                EpochReading(epoch=i, step=i, drift={"cls_entropy_pct": -float(i)})
                for i in range(epochs + 1)
            ],
            result=Result(test_accuracy=0.9, drift={"cls_entropy_pct": -0.4}),
        )  # fmt: skip
        atomic_write(folder.record_path(record.run_id), record.to_json())
    (row,) = [
        row for row in replay(folder, "paper-80").rows
        if row.metric == "last_epoch.drift.cls_entropy_pct" and row.n
    ]  # fmt: skip
    assert (row.ours, row.theirs, row.n) == (expected, -0.38, 2)


def measured(folder: Path) -> StudyFolder:
    """EuroSAT runs with histories and per-image readings, as a study leaves them."""
    out = StudyFolder(folder)
    out.create()
    for method, rates in {"lora": (1e-6, 5e-5), "full_ft": (1e-5,)}.items():
        for rate in rates:
            for seed in (7, 11):
                record = RunRecord(
                    run_id=f"{method}-{rate}-{seed}", identity="00", status="finished",
                    study="mine", backbone="clip", target="eurosat", method=method,
                    learning_rate=rate, seed=seed,
                    history=[
                        EpochReading(
                            epoch=0, step=0,
                            levels={
                                "cls_entropy_nats": 3.68, "gini": None, "rollout_entropy_bits": 5.7
                            },
                        )
                    ],
                    result=Result(
                        test_accuracy=0.9,
                        levels={"rollout_entropy_bits": 5.6035 + 1000 * rate + 2e-4 * (seed == 11)},
                    ),
                )  # fmt: skip
                atomic_write(out.record_path(record.run_id), record.to_json())
                spread = 0.01 if seed == 7 else 0.03
                table = pd.DataFrame(
                    {
                        "image": range(10),
                        "label": [i % 2 for i in range(10)],
                        "cls_entropy_nats": [3.0 + spread * i for i in range(10)],
                    }
                )
                table.to_parquet(out.run_path(record.run_id) / "probe_images.parquet")
    return out


def test_supporting_figures_are_held_against_what_a_study_read(tmp_path: Path) -> None:
    folder = measured(tmp_path)
    rows = {
        (row.method, row.metric): row
        for row in replay(folder, "paper-80").rows
        if row.kind in {"nearest_cell", "untouched", "upper_bound"}
    }
    # LoRA at 1e-6 reads 5.6046 and at 5e-5 5.6536: the first is nearest to the published 5.605.
    near = rows["lora", "levels.rollout_entropy_bits"]
    assert (near.learning_rate, near.n, near.within, near.reason) == (1e-6, 2, True, None)
    assert near.ours == pytest.approx(5.6046, abs=1e-12)
    assert near.diff == pytest.approx(5.6046 - 5.605, abs=1e-12)
    far = rows["full_ft", "levels.rollout_entropy_bits"]
    assert (far.learning_rate, far.within) == (1e-5, False)
    assert far.diff == pytest.approx(5.6136 - 5.593, abs=1e-12)
    before = rows[None, "untouched.cls_entropy_nats"]
    assert (before.target, before.n, before.within) == ("eurosat", 6, True)
    assert before.diff == pytest.approx(3.68 - 3.683, abs=1e-12)
    gini = rows[None, "untouched.gini"]
    assert (gini.ours, gini.reason) == (None, "untouched.gini is undefined in all runs")
    assert "no untouched.erf95" in rows[None, "untouched.erf95"].reason
    # The CV of each run again, from the same deal of the images into subsets.
    cvs = [
        row.cv
        for row in probe_sensitivity.rows(
            probe_sensitivity.read_tables(folder, folder.records()[0])[0]
        )
    ]
    bound = rows[None, "probe_cv.cls_entropy_nats"]
    assert bound.ours == pytest.approx(sum(cvs) / len(cvs), rel=1e-12)
    assert (bound.theirs, bound.tolerance, bound.within) == (0.001, None, False)


def test_the_command_names_the_rate_of_our_nearest_cell(tmp_path: Path) -> None:
    done = command_here("replay", "paper-80", measured(tmp_path).path, COLUMNS="160")
    lines = [re.sub(r"[│\s]+", " ", line).strip() for line in done.stdout.splitlines()]
    assert "Rollout entropy (bits), LR not published: our nearest cell" in " ".join(lines)
    # t of one degree of freedom, SD 0.00014, one configuration of theirs against two runs.
    assert "eurosat lora 1e-06 2 5.605 5.605 0.000 ±0.003 within" in lines
    assert "eurosat all all 6 3.680 3.683 −0.003 ±0.042 within" in lines
    assert "published as an upper bound" in " ".join(lines)


def test_a_preset_without_published_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        replay(StudyFolder(tmp_path), "quickstart")
    assert str(caught.value) == (
        "preset: expected one with published figures (leakage-free-66, leakage-free-b16, "
        "paper-80), got 'quickstart'. Name one."
    )


def test_a_folder_without_runs_and_one_that_is_not_there_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="expected at least one finished run, got none"):
        replay(StudyFolder(tmp_path / "empty"), "paper-80")
    with pytest.raises(StudyFolderError, match="got nothing there"):
        replay(StudyFolder(tmp_path / "nowhere"), "paper-80")


def test_a_study_of_other_cells_is_told_which_are_published_and_which_it_has(
    tmp_path: Path,
) -> None:
    other = [["flowers", "adapter", 1e-3, 0.9, 0.1, 0.5]]
    with pytest.raises(RecordError) as caught:
        replay(imported(tmp_path, cells=other), "paper-80")
    text = str(caught.value)
    assert "(targets eurosat, pets; methods full_ft, lora; learning rates 1e-06, 5e-06, " in text
    assert "got targets flowers; methods adapter; learning rates 0.001. " in text


def test_the_command_prints_ours_theirs_difference_and_verdict(tmp_path: Path) -> None:
    done = command("replay", "paper-80", imported(tmp_path, shift=-0.05).path, COLUMNS="160")
    assert done.returncode == 1
    lines = [re.sub(r"[│\s]+", " ", line).strip() for line in done.stdout.splitlines()]
    assert "pets lora 1e-05 5 84.93 89.93 −5.00 ±0.98 OUTSIDE" in lines
    assert "pets lora 5e-06 5 82.08 82.08 0.00 ±1.25 within" in lines
    assert "pets lora all 20 58.01 58.01 0.00 ±0.97 within" in lines
    assert "all all all 80 61.00 60.22 +0.78 ±0.96 within" in lines
    same = "cannot tell: the untouched model is within the tolerance too"
    assert f"pets lora 1e-06 5 60.24 60.24 0.00 ±0.96 {same}" in lines
    assert "Test accuracy (%)" in lines
    assert (
        "pets lora 5e-05 0 – −11.53 – not read here: no last_epoch.drift.cls_entropy_last_pct in "
        "these records" in " ".join(lines)
    )
    assert lines[-1] == (
        "66 published figures: 49 within tolerance, 1 outside (about 3 would be by chance alone), "
        "3 that cannot tell, 13 not read here"
    )
    assert done.stderr.strip() == "False"  # no torch


def test_the_command_gives_json_and_code_0_where_nothing_is_outside(tmp_path: Path) -> None:
    folder = imported(tmp_path)
    done = command_here("replay", "paper-80", folder.path, "--json", COLUMNS="160")
    assert done.returncode == 0
    assert json.loads(done.stdout) == [vars(row) for row in replay(folder, "paper-80").rows]


def test_the_command_says_what_can_be_mended_in_one_line(tmp_path: Path) -> None:
    done = command_here("replay", "paper-81", tmp_path, COLUMNS="160")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0].startswith("preset: expected one with published figures")
