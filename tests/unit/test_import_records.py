"""Tables made elsewhere become records: fields, units, undefined cells, and every fault at once."""

from __future__ import annotations

import csv
import io
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from small_study import study

from clipdrift.analysis.files import write_analysis
from clipdrift.analysis.frame import runs_frame
from clipdrift.errors import ClipdriftError, RecordError, StudyFolderError
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.imported import ImportSummary, import_runs
from clipdrift.study.measure import run_study

FIELDS = {
    "model": "backbone",
    "dataset": "target",
    "how": "method",
    "rate": "lr",
    "s": "seed",
    "val": "val_accuracy",
    "test": "test_accuracy",
    "c100": "transfer.cifar100.accuracy",
    "kept": "transfer.cifar100.retention_pct",
    "entropy": "drift.cls_entropy_pct",
    "early": "epoch1.cls_entropy_pct",
}
UNITS = {"val_accuracy": "fraction", "test_accuracy": "fraction", "transfer": "percent"}
ROW = {
    "model": "ViT-B/32",
    "dataset": "eurosat",
    "how": "lora",
    "rate": "1e-5",
    "s": "7",
    "val": "0.97",
    "test": "0.96",
    "c100": "45.5",
    "kept": "75.25",
    "entropy": "-1.5",
    "early": "-0.5",
    "norm": "3.25",
    "note": "fine",
}


class Import:
    """A table and a map in a folder, and what importing them gives."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, StudyFolder(folder / "out")
        self.rows: list[dict[str, str]] = [dict(ROW)]
        self.fields, self.units, self.more = dict(FIELDS), dict(UNITS), ""

    def table(self) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]))
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def run(self, table: str | None = None, mapping: str | None = None) -> ImportSummary:
        lines = ["columns:", *(f"  {name}: {field}" for name, field in self.fields.items())]
        lines += ["units:", *(f"  {field}: {unit}" for field, unit in self.units.items())]
        lines = lines[:-1] if not self.units else lines
        (self.folder / "runs.csv").write_text(self.table() if table is None else table)
        (self.folder / "map.yaml").write_text(mapping or "\n".join([*lines, self.more]))
        return import_runs(self.folder / "runs.csv", self.folder / "map.yaml", self.out.path)

    def records(self) -> list[RunRecord]:
        records, faults = self.out.records()
        assert faults == []
        return records

    def faults(self, **given: Any) -> list[str]:
        with pytest.raises(ClipdriftError) as caught:
            self.run(**given)
        assert not self.out.path.exists()  # nothing half-written
        prefix = f"{self.folder}/"
        return [str(fault).replace(prefix, "") for fault in caught.value.faults]


@pytest.fixture
def given(tmp_path: Path) -> Import:
    return Import(tmp_path)


def test_every_field_lands_where_the_record_has_it(given: Import) -> None:
    summary = given.run()
    (record,) = given.records()
    assert (summary.n_rows, summary.n_records) == (1, 1)
    assert (summary.extra_signals, summary.ignored_columns) == (("norm",), ("note",))
    assert summary.warnings == ()
    keys = (record.backbone, record.target, record.method, record.learning_rate, record.seed)
    assert keys == ("ViT-B/32", "eurosat", "lora", 1e-5, 7)
    assert (record.result.val_accuracy, record.result.test_accuracy) == (0.97, 0.96)
    assert record.result.transfer["cifar100"].accuracy == 0.455
    assert record.result.transfer["cifar100"].retention_pct == 75.25
    assert record.result.drift == {"cls_entropy_pct": -1.5}
    assert record.result.extra == {"norm": 3.25}
    (epoch,) = record.history
    assert (epoch.epoch, epoch.drift) == (1, {"cls_entropy_pct": -0.5})
    assert record.provenance["imported"]["row"] == 2
    assert re.fullmatch(r"eurosat-lora-lr1e-05-seed7-[0-9a-f]{8}", record.run_id)
    assert given.out.record_path(record.run_id).is_file()
    frame = runs_frame([record])
    assert frame["epoch1.drift.cls_entropy_pct"].tolist() == [-0.5]


def test_early_readings_of_every_kind(given: Import) -> None:
    given.fields |= {
        "norm": "epoch1.val_accuracy",
        "early": "epoch1.drift.gini_pct",
        "entropy": "epoch1.transfer.cifar100.accuracy",
    }
    given.rows[0] |= {"norm": "0.5", "entropy": "50"}
    given.run()
    (epoch,) = given.records()[0].history
    assert (epoch.val_accuracy, epoch.drift) == (0.5, {"gini_pct": -0.5})
    assert epoch.transfer["cifar100"].accuracy == 0.5  # transfer is in percent in this map


@pytest.mark.parametrize(
    ("column", "cells", "states"),
    [
        ("diverged", ("false", "True", ""), ("finished", "diverged", "finished")),
        ("diverged", ("0", "0", "1"), ("finished", "finished", "diverged")),
        ("status", ("finished", "Diverged", "failed"), ("finished", "diverged", "failed")),
    ],
)
def test_a_column_of_states_is_the_state_of_the_runs(
    column: str, cells: tuple[str, ...], states: tuple[str, ...], given: Import
) -> None:
    """Without a word in the map; a run that diverged is in no mean."""
    given.rows = [{**ROW, "s": str(seed), column: cell} for seed, cell in enumerate(cells)]
    summary = given.run()
    found = {record.seed: record for record in given.records()}
    assert tuple(found[seed].status for seed in range(3)) == states
    assert column not in (*summary.extra_signals, *summary.ignored_columns)
    assert runs_frame(given.records())["seed"].tolist() == [
        seed for seed, state in enumerate(states) if state == "finished"
    ]


def test_a_state_that_is_none_is_told(given: Import) -> None:
    given.rows[0]["status"] = "great"
    (fault,) = given.faults()
    assert fault.startswith("runs.csv column 'status': expected finished, completed, done, ok, ")
    assert fault.endswith("got 'great' in row 2. Correct the cells.")


def test_columns_that_say_nothing_of_a_run_are_no_signals(given: Import) -> None:
    """The same in all rows; what was read after epoch 1 is no reading of the end."""
    given.rows = [
        {**ROW, "s": str(s), "gpus": "8", "epoch1_gini_pct": str(s), "epoch1_x": ""}
        for s in range(2)
    ]
    given.rows[0]["norm"] = "3.5"
    summary = given.run()
    assert summary.extra_signals == ("norm",)
    assert summary.constant_columns == ("gpus",)
    assert summary.ignored_columns == ("note", "epoch1_x")
    first = min(given.records(), key=lambda record: record.seed)
    assert first.result.extra == {"norm": 3.5}
    assert first.history[0].drift == {"cls_entropy_pct": -0.5, "gini_pct": 0.0}


@pytest.mark.parametrize(
    ("column", "cell"), [("rate", "2000"), ("s", "-1"), ("kept", "-5"), ("c100", "-1")]
)
def test_a_number_that_no_run_can_have_is_refused(column: str, cell: str, given: Import) -> None:
    """By the ranges that records are held against."""
    given.rows[0][column] = cell
    (fault,) = given.faults()
    assert fault.startswith(f"runs.csv column '{column}': expected ")
    assert f"got '{cell}' in row 2." in fault


def test_percent_and_fraction(given: Import) -> None:
    given.units = {
        "val_accuracy": "percent",
        "test_accuracy": "percent",
        "transfer": "fraction",
        "transfer.cifar100.retention_pct": "fraction",
    }
    given.rows[0] |= {"val": "97.5", "test": "96", "c100": "0.455", "kept": "0.75"}
    given.run()
    result = given.records()[0].result
    assert (result.val_accuracy, result.test_accuracy) == (0.975, 0.96)
    assert result.transfer["cifar100"].accuracy == 0.455
    assert result.transfer["cifar100"].retention_pct == 75.0


def test_retention_follows_from_accuracy_and_a_constant_baseline(given: Import) -> None:
    del given.fields["kept"], given.fields["model"]
    given.more = "constants: {backbone: b32, transfer.cifar100.baseline_accuracy: 60.0}"
    given.run()
    record = given.records()[0]
    reading = record.result.transfer["cifar100"]
    assert (record.backbone, reading.baseline_accuracy) == ("b32", 0.6)
    assert reading.retention_pct == pytest.approx(100 * 45.5 / 60, rel=1e-12)
    assert reading.delta_accuracy_pp == pytest.approx(45.5 - 60, rel=1e-12)


@pytest.mark.parametrize("baseline", ["2.2e-311", "8.6e-277"])
def test_retention_of_a_baseline_near_nothing_is_undefined(given: Import, baseline: str) -> None:
    del given.fields["kept"], given.fields["model"]
    given.more = f"constants: {{backbone: b32, transfer.cifar100.baseline_accuracy: {baseline}}}"
    given.run()
    reading = given.records()[0].result.transfer["cifar100"]
    assert reading.baseline_accuracy == pytest.approx(float(baseline) / 100)  # given in percent
    assert (reading.retention_pct, reading.delta_accuracy_pp) == (None, None)


def test_counts_of_images_and_classes_give_errors_and_the_chance_rule(given: Import) -> None:
    # 96 of 100 right; of 20 classes 6 % of 100 are not distinguishable from chance, of 50 they are.
    given.fields["note"] = "transfer.cifar100.n_classes"
    given.rows = [
        {**ROW, "note": "20"},
        {**ROW, "note": "50", "s": "8", "test": "0.94"},
    ]
    given.more = (
        "constants: {test_n_images: 100, transfer.cifar100.n_images: 100, "
        "transfer.cifar100.baseline_accuracy: 6}"
    )
    given.run()
    result = {record.seed: record.result for record in given.records()}
    assert {seed: one.transfer["cifar100"].retention_pct for seed, one in result.items()} == {
        7: None,
        8: 75.25,
    }
    test, kept = (
        next(row for row in write_analysis(given.out)["cells"] if row["metric"] == metric)
        for metric in ("test_accuracy", "transfer.cifar100.accuracy")
    )
    # Agresti & Coull: two right and two wrong ones added to 95 of 100 right.
    assert (test["n_images"], kept["n_images"]) == (100, 100)
    assert test["image_se"] == pytest.approx((97 / 104 * 7 / 104 / 103) ** 0.5)
    assert test["interval_over"] == "seeds and images"


def test_counts_are_whole_and_have_no_unit(given: Import) -> None:
    given.fields["norm"] = "test_n_images"
    given.rows[0]["norm"] = "0.5"
    (fault,) = given.faults()
    assert fault.startswith("runs.csv column 'norm': expected a whole number from 1, got '0.5'")
    given.units["test_n_images"] = "percent"
    (fault,) = given.faults()
    assert "expected a mapped field or 'transfer', got 'test_n_images'" in fault


def test_reference_methods_are_not_matched(given: Import) -> None:
    given.more = "reference_methods: [linear_probe]"
    given.rows.append({**ROW, "how": "linear_probe"})
    given.run()
    assert {r.method: r.role for r in given.records()} == {
        "lora": "matched",
        "linear_probe": "reference",
    }


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "empty in the imported table"),
        ("NaN", "NaN in the imported table"),
        ("n/a", "NaN in the imported table"),
        ("inf", "infinite in the imported table"),
        ("-1e999", "infinite in the imported table"),
    ],
)
def test_undefined_cells_are_null_with_the_reason(given: Import, cell: str, reason: str) -> None:
    given.rows[0] |= {"entropy": cell, "test": cell, "norm": cell}
    given.rows.append({**ROW, "s": "11"})
    given.run()
    record = next(record for record in given.records() if record.seed == 7)
    assert record.result.drift["cls_entropy_pct"] is None
    assert record.result.test_accuracy is None
    assert record.undefined == {
        "drift.cls_entropy_pct": reason,
        "test_accuracy": reason,
        "extra.norm": reason,
    }


def test_repeated_rows_count_once_and_are_said(given: Import) -> None:
    given.rows += [dict(ROW), {**ROW, "test": "0.90"}]
    summary = given.run()
    assert (summary.n_rows, summary.n_records) == (3, 2)
    assert summary.warnings == ("row 3 repeats row 2: counted once",)
    result = write_analysis_of(given, extra_seed=True)
    details = {row["kind"]: row["detail"] for row in result["warnings"]}
    assert details["run_warning"] == "row 3 repeats row 2: counted once"
    assert details["duplicate_dropped"] == "records of the same run differ: none is used"


def write_analysis_of(given: Import, extra_seed: bool) -> dict[str, Any]:
    if extra_seed:
        given.rows.append({**ROW, "s": "11"})
        given.run()
    return write_analysis(given.out)


def test_import_again_changes_nothing_and_other_runs_are_refused(given: Import) -> None:
    given.run()
    before = {path: path.read_bytes() for path in given.out.path.rglob("*.json")}
    given.run()
    assert {path: path.read_bytes() for path in given.out.path.rglob("*.json")} == before
    given.rows = [{**ROW, "s": "8"}]
    with pytest.raises(StudyFolderError, match="expected a new or empty folder, got 1 other runs"):
        given.run()
    assert {path: path.read_bytes() for path in given.out.path.rglob("*.json")} == before


def test_folder_of_a_study_is_refused(given: Import) -> None:
    given.out.create()
    given.out.spec_path.write_text("name: mine")
    with pytest.raises(StudyFolderError, match="got the runs of a study"):
        given.run()


def test_a_study_does_not_take_the_folder_of_an_import(given: Import) -> None:
    given.run()
    given.out.record_path("damaged").parent.mkdir()
    given.out.record_path("damaged").touch()
    for _ in range(2):  # with the plan, and without, as older versions left it
        before = {path: path.read_bytes() for path in given.out.path.rglob("*.json")}
        with pytest.raises(StudyFolderError, match="expected a study's folder, got one of importe"):
            run_study(study(), given.out.path)
        assert {path: path.read_bytes() for path in given.out.path.rglob("*.json")} == before
        given.out.plan_path.unlink(missing_ok=True)


def test_names_cannot_leave_the_folder(given: Import) -> None:
    given.rows[0] |= {"dataset": "../../etc/passwd", "how": "lora (r=8) √"}
    given.run()
    (record,) = given.records()
    assert record.target == "../../etc/passwd"
    assert re.fullmatch(r"etc_passwd-lora_r_8-lr1e-05-seed7-[0-9a-f]{8}", record.run_id)


def test_all_bad_cells_are_told_at_once_with_their_rows(given: Import) -> None:
    given.rows += [{**ROW, "s": "1.5", "entropy": "low"}, {**ROW, "rate": "-1", "val": "97"}]
    given.rows += [{**ROW, "dataset": "", "entropy": "1,5", "test": "1_0", "s": ""}]
    assert given.faults() == [
        (
            "runs.csv column 'val': expected accuracies as fraction, 0 to 1, got '97' in row 4. "
            "Write 'val_accuracy: percent' under units, or correct the cells."
        ),
        "runs.csv column 'test': expected a number, got '1_0' in row 5. Correct the cells.",
        (
            "runs.csv column 'entropy': expected a number, got 'low' in row 3, '1,5' in row 5. "
            "Correct the cells."
        ),
        "runs.csv column 'dataset': expected a name, got '' in row 5. Correct the cells.",
        (
            "runs.csv column 'rate': expected a number above 0, at most 1000, got '-1' in row 4. "
            "Correct the cells."
        ),
        (
            "runs.csv column 's': expected a whole number from 0, got '1.5' in row 3, '' in row 5. "
            "Correct the cells."
        ),
    ]


def test_long_lists_of_bad_cells_are_cut(given: Import) -> None:
    given.rows = [{**ROW, "s": "x"} for _ in range(30)]
    (fault,) = given.faults()
    assert "'x' in row 21, and 10 more, to row 31. Correct the cells." in fault


def test_numbers_that_can_only_be_in_the_other_unit(given: Import) -> None:
    given.units = {"val_accuracy": "percent"}
    given.rows[0] |= {"kept": "0.75"}
    assert given.faults() == [
        (
            "runs.csv val_accuracy: expected accuracies in percent, got nothing above 0.97 %. "
            "Write 'val_accuracy: fraction' under units."
        ),
        (
            "runs.csv transfer.cifar100.retention_pct: expected percent (100 = all kept), "
            "got nothing above 0.75, as of a fraction. "
            "Write 'transfer.cifar100.retention_pct: fraction' (or percent) under units."
        ),
        (
            "runs.csv column 'c100': expected accuracies as fraction, 0 to 1, got '45.5' in row 2. "
            "Write 'transfer.cifar100.accuracy: percent' under units, or correct the cells."
        ),
    ]


def test_faults_of_the_map_are_told_at_once(given: Import) -> None:
    given.fields |= {"val": "val_acc", "kept": "transfer.cifar100.retention", "norm": "lr"}
    given.fields |= {"note": "drfit.gini"}
    del given.fields["s"]
    given.units = {"test_accuracy": "points", "transfers": "percent"}
    assert given.faults() == [
        "map.yaml columns: expected a known field, got 'val_acc'. Did you mean 'val_accuracy'?",
        (
            "map.yaml columns: expected a known field, got 'transfer.cifar100.retention'. "
            "Did you mean 'transfer.cifar100.retention_pct'?"
        ),
        "map.yaml columns: expected a known field, got 'drfit.gini'. Did you mean 'drift.gini'?",
        (
            "map.yaml lr: expected one column per field, got 2 columns. "
            "Map one of them, the others are kept as extra signals."
        ),
        (
            "map.yaml columns: expected a column for 'seed', got none. "
            "Add '<column>: seed' to columns, or 'seed: <value>' to constants."
        ),
        (
            "map.yaml units.test_accuracy: expected fraction or percent, got 'points'. "
            "Write 'test_accuracy: fraction' or 'test_accuracy: percent'."
        ),
        (
            "map.yaml units: expected a mapped field or 'transfer', got 'transfers'. "
            "Did you mean 'transfer'?"
        ),
    ]


@pytest.mark.parametrize(
    ("mapping", "fault"),
    [
        ("columns: [a", "map.yaml:1: expected valid YAML, got "),
        ("- a", "map.yaml: expected a map of columns to fields, got list. "),
        ("units: {}", "map.yaml: expected a map of columns to fields, got no 'columns' mapping. "),
        ("columns: {a: lr, a: seed}", "map.yaml:1 a: expected each key once, got a second one. "),
        ("columns: {a: [lr]}", "map.yaml columns.a: expected a single value, got ['lr']. "),
        ("columns: {? [a] : lr}", "map.yaml:1 columns.?: expected keys that are single values, "),
        ("columns: {a: 1:30}", "map.yaml:1 columns.a: expected numbers in digits, got 1:30, "),
        ("columns: {a: lr}\nunit: {}", "map.yaml unit: expected a known key, got 'unit'. "),
        ("columns: {a: lr}\nreference_methods: x", "map.yaml reference_methods: expected a list, "),
    ],
)
def test_malformed_maps(given: Import, mapping: str, fault: str) -> None:
    assert given.faults(mapping=mapping)[0].startswith(fault)


@pytest.mark.slow
@pytest.mark.parametrize("bomb", ["value", "key", "merge", "sixties", "unknown", "units", "sparse"])
def test_a_small_map_cannot_ask_for_much(given: Import, bomb: str, tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    texts = {
        "value": "\n".join([*rows, "columns: {a: *a9}"]),
        "key": "\n".join([*rows, "? *a9", ": x"]),
        "merge": "\n".join(
            ["a0: &a0 {x: 1}"]
            + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 10)]
        ),
        "sixties": "columns: {a: " + ":".join(["1", *["59"] * 300_000]) + "}",
        "unknown": "columns: {" + ", ".join(f"c{i}: field{i}" for i in range(15_000)) + "}",
        "units": "columns: {a: lr}\nunits: {" + ", ".join(f"u{i}: x" for i in range(15_000)) + "}",
        "sparse": "#" * 1_000_001,
    }
    started = time.perf_counter()
    assert all(len(fault) < 20_000 for fault in given.faults(mapping=texts[bomb]))
    assert time.perf_counter() - started < 60


def test_missing_columns_doubled_columns_and_ragged_rows(given: Import) -> None:
    header = "model,dataset,how,Rate,s,val,test,c100,kept,entropy,early,x,x"
    faults = given.faults(table=f"{header}\n1,2,3\n")
    assert faults[0].endswith("got 'rate'. Did you mean 'Rate'?")
    assert faults[0].startswith("runs.csv columns: expected one of the columns model, dataset, how")
    assert (
        faults[1]
        == "runs.csv: expected distinct columns, got 'x' twice. Rename one of the columns."
    )
    assert faults[2].startswith("runs.csv row 2: expected 13 cells, got 3. Mend the row")


@pytest.mark.parametrize(
    ("table", "got"),
    [
        ("", "got an empty file"),
        ("model,dataset\n", "got no rows"),
        ("model,dataset\n,\n\n", "got no rows"),
        ("model;dataset\nb;d\n", "got 'model;dataset'"),
    ],
)
def test_tables_without_runs(given: Import, table: str, got: str) -> None:
    (fault,) = given.faults(table=table)
    assert got in fault


def test_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("columns: {a: target, b: method, c: lr, d: seed}")
    with pytest.raises(RecordError, match=r"no\.csv: expected a CSV table, got No such file"):
        import_runs(tmp_path / "no.csv", tmp_path / "map.yaml", tmp_path / "out")
    with pytest.raises(RecordError, match=r"no\.yaml: expected a readable map, got No such file"):
        import_runs(tmp_path / "map.yaml", tmp_path / "no.yaml", tmp_path / "out")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(
        RecordError, match=r"pipe\.csv: expected a CSV table, got no plain file but"
    ):
        import_runs(tmp_path / "pipe.csv", tmp_path / "map.yaml", tmp_path / "out")
    (tmp_path / "long.csv").write_text(f"a,b\n{'x' * 20_000},1\n")
    with pytest.raises(RecordError, match="expected cells of at most 10,000 characters"):
        import_runs(tmp_path / "long.csv", tmp_path / "map.yaml", tmp_path / "out")
    (tmp_path / "latin.csv").write_bytes("a,b\nü,1\n".encode("latin-1"))
    with pytest.raises(RecordError, match=r"latin\.csv: expected a CSV table"):
        import_runs(tmp_path / "latin.csv", tmp_path / "map.yaml", tmp_path / "out")


def test_byte_order_mark_spaces_and_blank_lines_do_no_harm(given: Import) -> None:
    table = given.table().replace("eurosat", " eurosat ").replace("\r\n", "\r\n\r\n")
    given.run(table="\ufeff" + table)
    assert [record.target for record in given.records()] == ["eurosat"]


@pytest.mark.slow
def test_thousand_rows_take_seconds(given: Import) -> None:
    given.rows = [{**ROW, "s": str(seed), "test": str(seed / 1000)} for seed in range(1000)]
    start = time.perf_counter()
    assert given.run().n_records == 1000
    # Half a second on an idle disk; the margin is for a shared one.
    assert time.perf_counter() - start < 20
    assert len(given.records()) == 1000
