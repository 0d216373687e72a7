"""From a study to its runs: which, in which order, under which identity and name."""

from __future__ import annotations

import os.path
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_study import study

from clipdrift.records import StudyFolder
from clipdrift.spec import RunConfig, canonical_json, content_hash, expand, grid

CONTENT = {"backbone": "aa", "land-cover": "bb", "digits": "cc"}


def runs_of(**changes: Any) -> list[RunConfig]:
    return expand(study(**changes), precision="float32")


def identity_of(**changes: Any) -> str:
    """Identity of the study's first run."""
    return runs_of(**changes)[0].identity(CONTENT)


def test_runs_go_by_target_rate_seed_method_so_that_matched_runs_stand_together() -> None:
    runs = runs_of(targets=["b", "a"], learning_rates=[1e-4, 1e-5], seeds=[11, 7])
    found = [(r.target.name, r.learning_rate, r.seed, r.method.name) for r in runs]
    assert found == [
        (target, rate, seed, method)
        for target in ("b", "a")
        for rate in (1e-5, 1e-4)
        for seed in (11, 7)
        for method in ("full_ft", "lora")
    ]


def test_references_have_rates_and_targets_of_their_own() -> None:
    runs = runs_of(
        targets=["a", "b"],
        seeds=[7],
        methods=[
            "full_ft",
            {"kind": "linear_probe", "role": "reference", "learning_rates": [1e-3]},
            {
                "kind": "last_blocks",
                "role": "reference",
                "learning_rates": [1e-4, 3e-4],
                "targets": ["b"],
            },
            {"name": "frozen", "kind": "lora", "role": "reference", "projection": "frozen"},
        ],
    )
    found = {(r.target.name, r.learning_rate, r.method.name) for r in runs}
    assert found == {
        *((t, lr, m) for t in "ab" for lr in (1e-5, 1e-4) for m in ("full_ft", "frozen")),
        *((t, 1e-3, "linear_probe") for t in "ab"),
        *(("b", lr, "last_blocks") for lr in (1e-4, 3e-4)),
    }
    assert len(runs) == len(found)


def test_a_run_is_resolved_with_what_its_target_overrides() -> None:
    own = {
        "name": "a",
        "builtin": "digits",
        "epochs": 2,
        "horizontal_flip": False,
        "splits": {"val_per_class": 3},
        "probe": {"per_class": 4},
    }
    first, second = (
        next(r for r in runs_of(targets=[own, "b"]) if r.target.name == name) for name in "ab"
    )
    assert (first.schedule.epochs, first.schedule.horizontal_flip) == (2, False)
    assert (second.schedule.epochs, second.schedule.horizontal_flip) == (6, True)
    assert (first.splits.val_per_class, first.probe.per_class) == (3, 4)
    assert (second.splits.val_per_class, second.probe.per_class) == (None, None)
    assert first.target.epochs is None


def test_saying_a_default_on_the_target_changes_nothing() -> None:
    said = {"name": "land-cover", "builtin": "land-cover", "epochs": 6, "horizontal_flip": True}
    assert identity_of(targets=[said]) == identity_of()


@pytest.mark.parametrize(("named", "expected"), [("auto", "bfloat16"), ("float32", "float32")])
def test_auto_precision_is_the_machines(named: str, expected: str) -> None:
    runs = expand(study(precision=named), precision="bfloat16")
    assert {run.precision for run in runs} == {expected}


LORA = {"kind": "lora", "name": "m"}
FULL = {"kind": "full_ft", "name": "m"}
TARGET = {"name": "t", "builtin": "digits"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"learning_rates": [2e-5]}),
        ({}, {"seeds": [8]}),
        ({}, {"checkpoint": "last"}),
        ({}, {"precision": "bfloat16"}),
        ({}, {"interpolation": "bilinear"}),
        ({}, {"transfers": ["digits", "world"]}),
        ({}, {"transfers": [{"name": "digits", "builtin": "digits", "n_images": 50}]}),
        ({}, {"transfers": [{"name": "digits", "builtin": "digits", "seed": 1}]}),
        *(
            ({}, {"transfers": [{"name": "digits", "builtin": "digits", **said}]})
            for said in (
                {"templates": ["{}"]},
                {"spelling": "data"},
                {"underscores": "kept"},
                {"draw": "in_turn"},
            )
        ),
        *(
            ({}, {"schedule": {field: value}})
            for field, value in {
                "epochs": 7,
                "batch_size": 16,
                "weight_decay": 0.1,
                "warmup_fraction": 0.1,
                "warmup": "from_zero",
                "clip_norm": 2.0,
                "horizontal_flip": False,
                "max_steps": 5,
            }.items()
        ),
        *(
            ({}, {"splits": {field: value}})
            for field, value in {
                "train_per_class": 5,
                "val_per_class": 5,
                "val_fraction": 0.2,
                "test_per_class": 5,
                "seed": 1,
            }.items()
        ),
        *(
            ({}, {"probe": {field: value}})
            for field, value in {"per_class": 3, "n_images": 9, "source": "test", "seed": 1}.items()
        ),
        ({"probe": {"seed": 0}}, {"probe": {"seed": 0}, "splits": {"draw": "in_turn"}}),
        ({}, {"evaluation": {"epoch_transfer_images": 0}}),
        ({"methods": [FULL]}, {"methods": [LORA]}),
        *(
            ({"methods": [LORA]}, {"methods": [{**LORA, field: value}]})
            for field, value in {
                "rank": 4,
                "alpha": 8.0,
                "dropout": 0.0,
                "modules": ["q_proj"],
                "projection": "frozen",
                "head_init": "text",
                "head_lr": 1e-3,
            }.items()
        ),
        (
            {"methods": [{"kind": "last_blocks", "blocks": 1}]},
            {"methods": [{"kind": "last_blocks", "blocks": 2}]},
        ),
        *(
            ({"targets": [TARGET]}, {"targets": [{**TARGET, field: value}]})
            for field, value in {
                "name": "u",
                "test_fraction": 0.3,
                "class_names": ["x", "y"],
                "templates": ["{}"],
            }.items()
        ),
        (
            {"targets": [{"name": "t", "folder": "/a"}]},
            {"targets": [{"name": "t", "folder": "/a", "image_column": "pixels"}]},
        ),
    ],
    ids=str,
)
def test_identity_changes_with_what_changes_numbers(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert identity_of(**before) != identity_of(**after)


PEFT = {"kind": "peft", "name": "m", "type": "lora"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (LORA, {**LORA, "layers": {"last": 2}}),
        (PEFT, {**PEFT, "type": "loha"}),
        (PEFT, {**PEFT, "options": {"r": 4}}),
        (PEFT, {**PEFT, "modules": ["q_proj"]}),
        (PEFT, {**PEFT, "layers": {"range": [0, 3]}}),
    ],
    ids=str,
)
def test_what_an_adapter_is_and_where_it_lies_is_part_of_the_identity(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert identity_of(methods=[before]) != identity_of(methods=[after])


def test_fields_that_methods_got_later_change_no_identity_until_they_are_asked_for() -> None:
    plain = identity_of(methods=[LORA])
    assert identity_of(methods=[{**LORA, "layers": None, "tower": "vision"}]) == plain
    assert identity_of(methods=[{**PEFT, "type": "LoRA"}]) == identity_of(methods=[PEFT])


def test_saying_the_default_of_a_field_that_came_later_changes_no_identity() -> None:
    later = {"spelling": "published", "underscores": "spaces"}
    said = identity_of(
        targets=[{"name": "land-cover", "builtin": "land-cover", **later}],
        schedule={"warmup": "above_zero"},
        splits={"draw": "by_class"},
    )
    assert said == identity_of()
    # As it was before these fields: what a run is made of has none of them.
    written = canonical_json(runs_of()[0].model_dump(mode="json"))
    assert not [name for name in (*later, "draw", '"warmup"') if name in written]


def test_a_kind_of_damage_that_is_drawn_anew_changes_the_runs_that_ask_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = {name: {"evaluation": {"corruptions": [name]}} for name in ("motion_blur", "jpeg")}
    now = {name: identity_of(**changes) for name, changes in asked.items()} | {"": identity_of()}
    monkeypatch.setattr(grid, "DRAWN_ANEW", {})
    before = {name: identity_of(**changes) for name, changes in asked.items()} | {"": identity_of()}
    assert {name for name in now if now[name] != before[name]} == {"motion_blur"}


def test_identity_changes_with_content_and_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs_of()[0]
    known = {run.identity(CONTENT)}
    known.add(run.identity({**CONTENT, "land-cover": "b0"}))
    known.add(run.identity({**CONTENT, "backbone": "a0"}))
    known.add(run.identity({k: v for k, v in CONTENT.items() if k != "digits"}))
    monkeypatch.setattr(grid, "PROTOCOL_VERSION", grid.PROTOCOL_VERSION + 1)
    known.add(run.identity(CONTENT))
    assert len(known) == 5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"name": "renamed"}),
        ({}, {"description": "said better"}),
        ({}, {"underfit_fraction": 0.8}),
        ({}, {"compare_with": ["full_ft"]}),
        ({}, {"seeds": [7, 99]}),
        ({}, {"learning_rates": [1e-5, 3e-3]}),
        ({}, {"methods": ["full_ft", "linear_probe"], "varied": ["projection"]}),
        (
            {"targets": [{"name": "t", "folder": "/here/t"}]},
            {"targets": [{"name": "t", "folder": "/there/t"}]},
        ),
        (
            {"transfers": [{"name": "t", "files": {"test": "/here/t.csv"}}]},
            {"transfers": [{"name": "t", "files": {"test": "/there/t.csv"}}]},
        ),
        ({"backbone": "/here/clip"}, {"backbone": "/there/clip"}),
        ({"methods": [LORA]}, {"methods": [{**LORA, "role": "reference"}]}),
        ({}, {"precision": "float32"}),
    ],
    ids=str,
)
def test_identity_does_not_change_with_place_or_name(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    assert identity_of(**before) == identity_of(**after)


def test_all_runs_of_a_study_have_identities_and_names_of_their_own() -> None:
    runs = runs_of(
        learning_rates=[1e-5, 1.5e-5, 2e-5, 1.4999999999999999e-5],
        methods=["full_ft", "lora", {"kind": "lora", "name": "lora-4", "rank": 4}],
    )
    assert len({run.identity(CONTENT) for run in runs}) == len(runs) == 4 * 2 * 3
    assert len({run.name for run in runs}) == len(runs)


def test_names_keep_neighbouring_rates_apart() -> None:
    names = {run.name for run in runs_of(learning_rates=[1.5e-5, 2e-5], methods=["lora"])}
    assert names == {
        f"land-cover-lora-lr{rate}-seed{seed}" for rate in ("1.5e-05", "2e-05") for seed in (7, 11)
    }


def test_a_run_id_ends_in_eight_digits_of_the_identity() -> None:
    run = runs_of()[0]
    assert run.run_id("0123456789abcdef") == "land-cover-full_ft-lr1e-05-seed7-01234567"


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


@given(
    target=NAMES,
    method=NAMES,
    rate=st.floats(0, 10, exclude_min=True),
    seed=st.integers(0, 2**31 - 1),
)
def test_names_stay_in_their_folder(target: str, method: str, rate: float, seed: int) -> None:
    run = runs_of(
        targets=[{"name": target, "builtin": "digits"}],
        methods=[{"name": method, "kind": "lora"}],
        learning_rates=[rate],
        seeds=[seed],
    )[0]
    run_id = run.run_id(run.identity(CONTENT))
    folder = StudyFolder(Path("/study"))
    path = os.path.normpath(folder.record_path(run_id))
    assert not {"/", "\\", "\0", "+", " "} & set(run_id)
    assert os.path.dirname(os.path.dirname(path)) == "/study/runs"
    assert os.path.basename(os.path.dirname(path)) == run_id
    assert len(run_id.encode()) <= 255  # the longest file name of common file systems


def test_canonical_json_has_one_text_per_value() -> None:
    assert canonical_json({"b": [1, 2.0], "a": None}) == '{"a":null,"b":[1,2.0]}'
    assert content_hash([1, 2]) != content_hash([2, 1])
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json({"x": float("nan")})


def test_a_content_hash_is_plain_sha256() -> None:
    """Digest of the two bytes {} by the standard tool sha256sum."""
    expected = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert content_hash({}) == expected
