"""The whole analysis: valid by its schema, independent of order, honest about what is missing."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jsonschema
import numpy as np
import pandas as pd
import pytest

from clipdrift.analysis.files import schema, to_csv, to_json, write_analysis
from clipdrift.analysis.rows import Metric, OfTarget, list_schema, said, sure
from clipdrift.analysis.statistics.pairs import compared_with
from clipdrift.analysis.summary import analyze, row_keys
from clipdrift.errors import RecordError, StudyFolderError
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.report.printed import field_text

MakeRecords = Callable[..., list[RunRecord]]
ISSUE_KEYS = {
    "cells": ["backbone", "target", "method", "learning_rate", "metric", "n", "mean", "sd"],
    "paired": [
        *(
            "target",
            "metric",
            "method_a",
            "method_b",
            "learning_rate",
            "scope",
            "n_pairs",
            "mean_diff",
        ),
        *("ci_low", "ci_high", "cohen_dz", "t", "p_t", "p_wilcoxon", "wilcoxon_floor", "p_holm"),
    ],
    "mixed": ["backbone", "metric", "term", "model"],
    "equivalence": ["target", "metric", "margin", "p_tost", "result"],
    "dose_response": [
        *("target", "method", "metric", "n", "spearman_rho", "p", "ci_low", "ci_high"),
    ],
    "matched_views": ["target", "view", "metric"],
    "operating_points": ["target", "method", "learning_rate"],
    "selection": ["target", "signal", "run_id"],
    "predictors": [
        *("signal", "when", "outcome", "n", "spearman_overall", "p", "ci_low", "ci_high", "gap"),
        "within_target_mean_abs",
        *("within_group_mean_abs", "within_group_mean_signed"),
    ],
    "mediation": ["mediator", "outcome"],
    "frontier": ["target", "method", "learning_rate"],
    "grid_adequacy": ["target", "method", "edge"],
    "probe_sensitivity": ["signal", "cv", "settled_at"],
    "power": ["target", "metric", "detectable_diff", "seeds_for_1pp"],
    "reproduction": ["ours", "theirs"],
    "warnings": ["kind", "detail"],
}


def probe_tables(records: list[RunRecord]) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    images = {"image": range(20), "label": [0, 1] * 10, "gini": rng.random(20)}
    return {records[0].run_id: pd.DataFrame(images)}


def small(make_records: MakeRecords, **keys: Any) -> list[RunRecord]:
    chosen = {"targets": ("digits",), "rates": (1e-5, 1e-4), "seeds": (7, 11, 19), **keys}
    return make_records(**chosen)


def check(result: dict[str, Any]) -> dict[str, Any]:
    """Valid by the schema, without NaN, and every null explained by its row."""
    jsonschema.validate(json.loads(to_json(result)), schema())
    assert json.loads(to_json(result)) == result
    return result


@pytest.mark.slow
def test_result_is_valid_and_has_every_key(make_records: MakeRecords) -> None:
    records = make_records(linear_probe=True)
    for record in records:
        record.study = "paper-80"
    result = check(analyze(records, probe_tables=probe_tables(records)))
    for key, columns in ISSUE_KEYS.items():
        assert key in row_keys()
        assert set(columns) <= set(schema()["properties"][key]["items"]["properties"])
        assert result[key] or key == "warnings"
    assert result["settings"]["preset"] == "paper-80"


def test_schema_lists_exactly_the_columns_of_every_row(make_records: MakeRecords) -> None:
    records = small(make_records)
    result = analyze(records, published="paper-80", probe_tables=probe_tables(records))
    for key in row_keys():
        columns = list(schema()["properties"][key]["items"]["properties"])
        assert all(list(row) == columns for row in result[key]), key


@dataclass(frozen=True, kw_only=True)
class Spread(OfTarget):
    """How far seeds lie apart.

    sd: over seeds, ddof 1; of a metric that
        every seed has
    """

    table: ClassVar = "spread"

    metric: Metric
    sd: Annotated[float | None, sure("SD", "size")] = None
    names: list[str]
    kind: Literal["few", "many"] | None


def test_a_list_is_described_by_the_class_of_its_rows() -> None:
    found = list_schema(Spread)
    assert found["description"] == "How far seeds lie apart."
    columns = found["items"]["properties"]
    assert list(columns) == found["items"]["required"]
    assert list(columns) == ["backbone", "target", "metric", "sd", "names", "kind"]
    told = "over seeds, ddof 1; of a metric that every seed has; in the metric's unit"
    assert columns["sd"] == {"type": ["number", "null"], "description": told}
    assert columns["names"] == {"type": "array", "items": {"type": "string"}}
    assert columns["kind"] == {"enum": ["few", "many", None]}


def test_a_field_that_rows_do_not_have_is_an_error_and_no_dash() -> None:
    row = Spread(backbone="b", target="t", metric="test_accuracy", sd=0.0123, names=[], kind=None)
    assert field_text(row, "sd", unit=True) == "1.2\u00a0pp"
    with pytest.raises(KeyError, match="spread"):
        field_text(row, "spread")
    with pytest.raises(TypeError, match="lr"):
        Spread.read({**vars(row), "lr": 1e-5})

    class Misspelt(Spread):
        """A list.

        sdd: what no field is
        """

    with pytest.raises(KeyError, match="sdd"):
        said(Misspelt)


def test_order_of_records_changes_no_digit(make_records: MakeRecords) -> None:
    records = small(make_records, linear_probe=True)
    mixed = records[:]
    random.Random(1).shuffle(mixed)
    assert to_json(analyze(mixed)) == to_json(analyze(records))


@pytest.mark.slow
def test_backbones_are_never_pooled(make_records: MakeRecords) -> None:
    first, second = small(make_records), small(make_records, backbone="other", rng_seed=3)
    alone, both = analyze(first), check(analyze([*first, *second]))
    for key in row_keys():
        if key in ("warnings", "probe_sensitivity"):
            continue
        own = [row for row in both[key] if row["backbone"] == "mini-clip"]
        if key.startswith("early_"):  # of one backbone there is none to forecast another from
            own, alone[key] = (
                [row for row in rows if row["split"] != "backbone"] for rows in (own, alone[key])
            )
        if key == "dose_axes":  # what other backbones say of an axis stands beside it
            own, alone[key] = (
                [{**r, "collapse_elsewhere": 0, "chosen_elsewhere": 0, "reason": 0} for r in rows]
                for rows in (own, alone[key])
            )
        if key == "paired":  # Holm's family spans the whole analysis
            own, expected = (
                [{**r, "p_holm": 0, "family": 0} for r in rows] for rows in (own, alone[key])
            )
            assert own == expected
        else:
            assert own == alone[key], key
    (warning,) = [row for row in both["warnings"] if row["kind"] == "several_backbones"]
    assert warning["detail"] == "mini-clip, other: analysed apart, never pooled"


def nulls_are_explained(result: dict[str, Any]) -> None:
    """Statistics that are null stand in a row that says why."""
    free = {
        *("reason", "learning_rate", "seed", "family", "model_reason", "df", "fit", "n_images"),
        *("edge", "target", "run_id", "method", "words", "detail", "when"),
        *("seeds_for_1pp", "seeds_for_2pp", "seeds_for_5pp", "at", "val_accuracy", "kind"),
        *("min_accuracy", "within_pp", "min_retention_pct", "would_change"),
        *("lead_pp", "lead_ci_low", "lead_ci_high", "image_se", "shared_se"),
        *("lost_pp", "gone_pp", "misaligned_pp"),  # of studies that read in full
    }
    for key in row_keys():
        for row in result[key]:
            empty = [name for name, value in row.items() if value is None and name not in free]
            if "p_holm" in empty and row["family"]:  # which says that p is uncorrected, and why
                empty.remove("p_holm")
            assert not empty or key == "warnings" or row["reason"], (key, empty, row)


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"methods": ("lora",)},
        {"rates": (1e-5,)},
        {"seeds": (7,)},
        {"methods": ("lora",), "rates": (1e-5,), "seeds": (7,)},
        {"methods": ("full_ft", "lora", "third"), "targets": ("digits", "pets")},
    ],
)
def test_small_designs_give_valid_answers_and_reasons(
    make_records: MakeRecords, keys: dict[str, Any]
) -> None:
    result = check(analyze(small(make_records, **keys)))
    nulls_are_explained(result)
    kinds = {row["kind"] for row in result["warnings"]}
    expected = {
        "methods": "one_method",
        "rates": "one_learning_rate",
        "seeds": "one_seed",
    }
    assert kinds == {expected[key] for key, value in keys.items() if len(value) == 1}


def test_nothing_at_all_is_valid() -> None:
    result = check(analyze([]))
    assert all(result[key] == [] for key in row_keys())


def test_nan_infinite_and_null_metrics_become_null_with_reasons(make_records: MakeRecords) -> None:
    records = small(make_records)
    records[0].result.drift["cka_mean"] = math.nan
    records[1].result.transfer["cifar10"].retention_pct = math.inf
    records[2].result.test_accuracy = None
    records[2].undefined["test_accuracy"] = "the test part is empty"
    for record in records:
        record.result.drift["never"] = None
        record.undefined["drift.never"] = "zero variance"
    result = check(analyze(records))
    nulls_are_explained(result)
    said = {row["detail"]: row["count"] for row in result["warnings"]}
    assert said["drift.cka_mean: NaN or infinite in the record"] == 1
    assert said["transfer.cifar10.retention_pct: NaN or infinite in the record"] == 1
    assert said["test_accuracy: the test part is empty"] == 1
    assert said["drift.never: zero variance"] == 12


def test_zero_variance_everywhere_is_valid(make_records: MakeRecords) -> None:
    records = small(make_records)
    for record in records:
        record.result.test_accuracy = record.result.val_accuracy = 0.9
        for reading in (record.result, record.history[1]):
            reading.drift = dict.fromkeys(reading.drift, 1.0)
            for transfer in reading.transfer.values():
                transfer.retention_pct = 80.0
    result = check(analyze(records))
    nulls_are_explained(result)
    (row,) = [
        row
        for row in result["paired"]
        if row["metric"] == "test_accuracy" and row["scope"] == "grid_mean"
    ]
    assert (row["mean_diff"], row["t"], row["p_wilcoxon"]) == (0.0, None, None)


def test_what_was_left_out_is_said(make_records: MakeRecords) -> None:
    records = small(make_records)
    by_key = {(r.method, r.learning_rate, r.seed): r for r in records}
    diverged = by_key["lora", 1e-4, 7]
    diverged.status, diverged.reason = "diverged", "loss is not finite"
    by_key["lora", 1e-5, 11].fingerprints["data"] = "another split"
    again = by_key["full_ft", 1e-5, 19].model_copy(update={"run_id": "zz-again"}, deep=True)
    by_key["full_ft", 1e-5, 7].leaks = ["test part read every epoch"]
    result = check(analyze([*records, again]))
    found = {row["kind"]: row for row in result["warnings"] if row["kind"] != "pairs_dropped"}
    assert found["run_not_finished"]["detail"] == "diverged: loss is not finite"
    assert found["run_not_finished"]["learning_rate"] == 1e-4
    kept_once = found["duplicate_kept_once"]
    assert kept_once["run_ids"] == [by_key["full_ft", 1e-5, 19].run_id, "zz-again"]
    assert found["leak"]["detail"] == "test part read every epoch"
    dropped = {
        (r["learning_rate"], r["detail"]): r["count"]
        for r in result["warnings"]
        if r["kind"] == "pairs_dropped"
    }
    assert dropped == {
        (1e-4, "full_ft against lora: no matched run of lora"): 1,
        (1e-5, "full_ft against lora: different data"): 1,
    }
    cells = {
        row["n"]
        for row in result["cells"]
        if (row["method"], row["learning_rate"]) == ("lora", 1e-4)
    }
    assert cells == {2}  # a diverged run is in no mean


@pytest.mark.slow
def test_contradicting_duplicates_are_dropped_and_said(make_records: MakeRecords) -> None:
    records = small(make_records)
    other = records[0].model_copy(update={"run_id": "zz-other"}, deep=True)
    other.result.test_accuracy = 0.123
    result = check(analyze([*records, other]))
    (row,) = [row for row in result["warnings"] if row["kind"] == "duplicate_dropped"]
    assert (row["count"], row["run_ids"]) == (2, [records[0].run_id, "zz-other"])
    assert result["generated_from"]["n_runs_used"] == len(records) - 1


@pytest.mark.slow
def test_hash_of_the_records_follows_their_content(make_records: MakeRecords) -> None:
    records = small(make_records)
    before = analyze(records)["generated_from"]["records_hash"]
    changed = copy.deepcopy(records)
    changed[3].result.drift["cka_mean"] = 0.5
    assert analyze(changed)["generated_from"]["records_hash"] != before


def in_folder(records: list[RunRecord], path: Path) -> StudyFolder:
    folder = StudyFolder(path)
    folder.create()
    for record in records:
        atomic_write(folder.record_path(record.run_id), record.to_json())
    return folder


def test_folder_gets_json_and_the_same_rows_as_csv(
    make_records: MakeRecords, tmp_path: Path
) -> None:
    folder = in_folder(small(make_records), tmp_path / "study")
    result = write_analysis(folder)
    assert json.loads(folder.analysis_path.read_text()) == result
    for key in row_keys():
        with (folder.tables_path / f"{key}.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == len(result[key])
        for line, row in zip(lines, result[key], strict=True):
            for name, value in row.items():
                if isinstance(value, float):
                    assert float(line[name]) == value
                elif value is None:
                    assert line[name] == ""


def test_damaged_record_is_a_warning_and_a_folder_without_any_an_error(
    make_records: MakeRecords, tmp_path: Path
) -> None:
    folder = in_folder(small(make_records), tmp_path / "study")
    victim = next(folder.runs_path.glob("*/record.json"))
    victim.write_text(victim.read_text()[:100])
    result = write_analysis(folder)
    (row,) = [row for row in result["warnings"] if row["kind"] == "unreadable_record"]
    assert "a half-written or damaged file" in row["detail"]
    for path in folder.runs_path.glob("*/record.json"):
        path.write_text("{")
    with pytest.raises(RecordError, match="expected at least one finished run, got none"):
        write_analysis(folder)
    with pytest.raises(StudyFolderError, match="expected a study folder, got nothing there"):
        write_analysis(StudyFolder(tmp_path / "nowhere"))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r\n@", " +"])
def test_text_cells_are_never_formulas(start: str) -> None:
    rows = [{"target": f"{start}cmd()", "run_ids": [f"{start}a", "b"], "mean": -0.5}]
    (line,) = csv.DictReader(io.StringIO(to_csv("cells", rows), newline=""))
    assert line["target"] == f"'{start.strip()}cmd()"
    assert line["run_ids"] == f"'{start.strip()}a b"
    assert line["mean"] == "-0.5"


@pytest.mark.slow
def test_runs_under_other_conditions_enter_no_comparison(make_records: Any) -> None:
    records = make_records(rates=(1e-5, 3e-5, 1e-4), blocks=1, epochs=1)
    odd = next(r for r in records if r.method == "lora" and r.role == "matched")
    place = (odd.backbone, odd.target, odd.learning_rate, odd.seed)
    changed = [
        r.model_copy(update={"fingerprints": {**r.fingerprints, "data": "another"}})
        if r.run_id == odd.run_id
        else r
        for r in records
    ]
    # Leaving out both runs of the place is what the analysis should amount to.
    left = [
        r
        for r in records
        if r.role != "matched" or (r.backbone, r.target, r.learning_rate, r.seed) != place
    ]
    ours, wanted = analyze(changed), analyze(left)
    for key in ("matched_views", "mediation"):
        assert ours[key] == wanted[key]
    numbers = [
        [
            (r["metric"], r["learning_rate"], r["n_pairs"], r["detectable_diff"])
            for r in result["power"]
        ]
        for result in (ours, wanted)
    ]
    assert numbers[0] == numbers[1]
    assert ours["power"] != analyze(records)["power"]


SEVEN = ("adapters", "bitfit", "dora", "full_ft", "lora", "oft", "vera")


@pytest.mark.parametrize(
    ("methods", "asked", "expected"),
    [
        (SEVEN[:6], None, None),
        (SEVEN, None, ["full_ft"]),
        ([*SEVEN[:3], *SEVEN[4:], "zz"], None, ["adapters"]),
        (SEVEN, ["lora", "dora"], ["dora", "lora"]),
    ],
)
def test_many_methods_are_compared_with_one_of_them(
    methods: list[str], asked: list[str] | None, expected: list[str] | None
) -> None:
    assert compared_with(methods, asked) == expected


@pytest.mark.slow
def test_what_is_compared_is_said_and_the_rest_keeps_its_numbers(make_records: MakeRecords) -> None:
    records = small(make_records, methods=SEVEN, blocks=1, epochs=1)
    result = check(analyze(records))
    alone = analyze([record for record in records if record.method in ("full_ft", "lora")])
    assert result["settings"]["compare_with"] == ["full_ft"]
    assert alone["settings"]["compare_with"] is None
    (row,) = (row for row in result["warnings"] if row["kind"] == "pairs_not_compared")
    assert row["count"] == 7 * 6 // 2 - 6
    for key in ("paired", "equivalence", "matched_views", "mediation", "power"):
        pairs = {(r["method_a"], r["method_b"]) for r in result[key]}
        assert pairs == {tuple(sorted(("full_ft", name))) for name in SEVEN if name != "full_ft"}
        of_family = ("p_holm", "family")  # the only fields that look beyond the pair
        ours, theirs = (
            [
                {k: v for k, v in r.items() if k not in of_family}
                for r in rows
                if r["method_b"] == "lora"
            ]
            for rows in (result[key], alone[key])
        )
        assert ours == theirs
