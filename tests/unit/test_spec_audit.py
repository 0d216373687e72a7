"""Matchedness: a study that breaks it is refused, and the audit says how each factor stands."""

from __future__ import annotations

from typing import Any

import pytest
from small_study import study

from clipdrift.errors import SpecError
from clipdrift.spec.audit import audit

DIFFERENT = [("projection", "frozen"), ("head_init", "text"), ("head_lr", 1e-3)]


def faults_of(**changes: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        study(**changes)
    return [str(fault) for fault in caught.value.faults]


def rows_of(**changes: Any) -> dict[str, tuple[str, str]]:
    return {row.factor: (row.value, row.status) for row in audit(study(**changes))}


@pytest.mark.parametrize(("factor", "value"), DIFFERENT)
def test_matched_methods_may_not_differ_in_a_factor(factor: str, value: object) -> None:
    (fault,) = faults_of(methods=["full_ft", {"kind": "lora", factor: value}])
    assert f" methods.1.{factor}: expected " in fault
    assert f"as in matched method 'full_ft', got {value!r}. " in fault
    assert fault.endswith(f"Make them equal, set role: reference, or add {factor} to varied.")


@pytest.mark.parametrize(("factor", "value"), DIFFERENT)
def test_unless_the_factor_is_studied(factor: str, value: object) -> None:
    changes = {"methods": ["full_ft", {"kind": "lora", factor: value}], "varied": [factor]}
    status = {name: status for name, (_, status) in rows_of(**changes).items()}
    assert status[factor.replace("_", " ")] == "varied"
    others = {f.replace("_", " ") for f, _ in DIFFERENT} - {factor.replace("_", " ")}
    assert {status[other] for other in others} == {"shared"}


@pytest.mark.parametrize(("factor", "value"), DIFFERENT)
def test_or_the_method_is_a_reference(factor: str, value: object) -> None:
    rows = rows_of(methods=["full_ft", {"kind": "lora", "role": "reference", factor: value}])
    assert rows["method"] == ("full_ft", "crossed")
    assert rows[factor.replace("_", " ")][1] == "shared"


def test_varying_one_factor_does_not_excuse_another() -> None:
    lora = {"kind": "lora", "projection": "frozen", "head_lr": 1e-3}
    (fault,) = faults_of(methods=["full_ft", lora], varied=["head_lr"])
    assert "methods.1.projection" in fault


def test_every_difference_of_every_method_is_named() -> None:
    faults = faults_of(
        methods=[
            {"kind": "linear_probe", "role": "reference"},
            "full_ft",
            {"kind": "lora", "head_init": "text", "head_lr": 1e-3},
            "linear_probe",
        ]
    )
    assert sorted(fault.split(":")[1].split()[1] for fault in faults if "twice" not in fault) == [
        "methods.2.head_init",
        "methods.2.head_lr",
        "methods.3.projection",
    ]


def test_a_reference_names_targets_of_the_study() -> None:
    probe = {"kind": "linear_probe", "role": "reference", "targets": ["land-cover", "pets"]}
    (fault,) = faults_of(methods=["full_ft", probe])
    assert "methods.1.targets: expected names among land-cover, got 'pets'. " in fault


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"splits": {"val_fraction": 0}}, "splits.val_fraction"),
        (
            {"targets": [{"name": "a", "builtin": "a", "splits": {"val_fraction": 0}}]},
            "targets.0.splits.val_fraction",
        ),
    ],
)
def test_choosing_by_validation_needs_validation_images(
    changes: dict[str, Any], where: str
) -> None:
    (fault,) = faults_of(**changes)
    assert f" {where}: expected more than 0 with checkpoint: best_validation, got 0. " in fault
    for rule in ("last", "paper_test_selected"):
        assert study(**changes, checkpoint=rule).checkpoint == rule


def test_splits_that_no_target_reads_are_not_held_against_a_study() -> None:
    own = {"name": "a", "builtin": "a", "splits": {"val_per_class": 3}}
    study(splits={"val_fraction": 0}, targets=[own])
    both = [own, {"name": "b", "builtin": "b"}]
    (fault,) = faults_of(splits={"val_fraction": 0}, targets=both)
    assert " splits.val_fraction: expected more than 0" in fault


def test_a_clean_study_has_no_leak_and_shares_everything_but_its_axes() -> None:
    rows = rows_of()
    crossed = {factor for factor, (_, status) in rows.items() if status == "crossed"}
    assert crossed == {"method", "learning rate", "seed", "target"}
    assert {status for _, status in rows.values()} == {"crossed", "shared"}
    assert rows["method"][0] == "full_ft, lora"
    assert rows["learning rate"][0] == "1e-05, 0.0001"
    assert rows["seed"][0] == "7, 11"
    assert rows["schedule"][0] == "AdamW, 6 epochs, batch 32, wd 0.01, warm-up 5%, cosine, clip 1"


def test_epochs_that_differ_between_targets_are_all_shown() -> None:
    targets = [{"name": "a", "builtin": "a", "epochs": 20}, "b"]
    assert rows_of(targets=targets)["schedule"][0].startswith("AdamW, 20 / 6 epochs, ")
    same = [{"name": "a", "builtin": "a", "epochs": 6}, "b"]
    assert rows_of(targets=same)["schedule"][0].startswith("AdamW, 6 epochs, ")


def test_selecting_on_the_test_split_is_called_a_leak() -> None:
    rows = rows_of(checkpoint="paper_test_selected")
    assert rows["checkpoint rule"] == ("paper_test_selected", "leak")
    assert rows["probe set"][1] == "shared"


@pytest.mark.parametrize(
    "changes",
    [
        {"probe": {"source": "test"}},
        {"targets": ["b", {"name": "a", "builtin": "a", "probe": {"source": "test"}}]},
    ],
)
def test_probing_the_test_split_is_called_a_leak(changes: dict[str, Any]) -> None:
    rows = rows_of(**changes)
    assert rows["probe set"][1] == "leak"
    assert rows["checkpoint rule"][1] == "shared"


def test_a_target_may_take_its_probe_set_out_of_the_leak() -> None:
    own = [{"name": "a", "builtin": "a", "probe": {"source": "train"}}]
    assert rows_of(probe={"source": "test"}, targets=own)["probe set"][1] == "shared"


def test_compared_with_names_matched_methods() -> None:
    probe = {"kind": "linear_probe", "role": "reference"}
    (fault,) = faults_of(methods=["full_ft", probe], compare_with=["full_ft", "linear_probe"])
    expected = (
        "compare_with: expected names among the matched methods full_ft, got 'linear_probe'. "
    )
    assert expected in fault


def test_sets_drawn_in_turn_have_one_seed() -> None:
    own = {"name": "b", "builtin": "digits", "probe": {"per_class": 3, "seed": 4}}
    found = faults_of(targets=["land-cover", own], splits={"seed": 5, "draw": "in_turn"})
    assert [fault.split(" ", 1)[1] for fault in found] == [
        f"{where}: expected 5 as splits.seed, with draw: in_turn, got {seed}. Make them equal, or "
        "leave draw out."
        for where, seed in (("probe.seed", 42), ("targets.1.probe.seed", 4))
    ]
    study(splits={"draw": "in_turn"}, probe={"source": "test", "seed": 42})
