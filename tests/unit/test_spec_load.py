"""Reading a study file: what is refused, in which words, at which line."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_study import TEXT, study

from clipdrift.errors import SpecError
from clipdrift.spec import StudySpec, dump_spec, load_spec, parse_spec
from clipdrift.spec.methods import FullFtSpec, LastBlocksSpec, LoraSpec


def faults_of(text: str, **options: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, name="s.yaml", **options)
    return [str(fault) for fault in caught.value.faults]


def line_of(text: str, part: str) -> int:
    """Number from 1 of the only line that holds a text."""
    (number,) = [i for i, line in enumerate(text.splitlines(), 1) if part in line]
    return number


def test_a_short_study_is_filled_with_the_documented_defaults() -> None:
    spec = parse_spec(TEXT)
    assert spec.name == "small"
    assert spec.targets[0].name == spec.targets[0].builtin == "land-cover"
    assert spec.transfers[0].builtin == "digits"
    assert spec.methods[0] == FullFtSpec(kind="full_ft", name="full_ft")
    lora = spec.methods[1]
    assert isinstance(lora, LoraSpec)
    assert (lora.rank, lora.alpha, lora.dropout) == (8, 16.0, 0.05)
    assert lora.modules == ["q_proj", "v_proj"]
    assert (lora.projection, lora.head_init, lora.head_lr) == ("trained", "random", "matched")
    assert spec.learning_rates == [1e-5, 1e-4]  # YAML reads 1e-5, without a dot, as text
    assert (spec.schedule.epochs, spec.schedule.batch_size) == (6, 32)
    assert (spec.probe.seed, spec.splits.seed) == (42, 0)
    assert spec.backbone.id == "mini-clip"


def test_shorthands_and_long_forms_say_the_same() -> None:
    long = study(
        targets=[{"name": "land-cover", "builtin": "land-cover"}],
        methods=[{"name": "full_ft", "kind": "full_ft"}, {"kind": "lora"}],
        backbone={"id": "mini-clip"},
    )
    assert long == study(backbone="mini-clip", methods=["full_ft", {"name": "lora", "rank": 8}])


def test_a_method_may_have_a_name_of_its_own() -> None:
    spec = study(methods=[{"name": "top", "kind": "last_blocks", "blocks": 2}])
    assert spec.methods == [LastBlocksSpec(kind="last_blocks", name="top", blocks=2)]


@pytest.mark.parametrize(
    ("text", "line"),
    [("name: a\nseeds: [7\nmethods: b\n", 3), ("name: a\n  seeds: 7\n", 2), ("name: {a: 'b\n", 2)],
)
def test_malformed_yaml_names_its_line(text: str, line: int) -> None:
    (fault,) = faults_of(text)
    assert fault.startswith(f"s.yaml:{line}: expected valid YAML, got ")
    assert fault.endswith(". Check indentation, colons and quotes there.")


def test_an_unknown_key_names_line_and_likely_meaning() -> None:
    (fault,) = faults_of(TEXT + "sheduel:\n  epochs: 2\n")
    assert fault.startswith("s.yaml:10 sheduel: expected a known key (backbone, checkpoint, ")
    assert fault.endswith(", got 'sheduel'. Did you mean 'schedule'?")


def test_an_unknown_key_deep_inside_lists_the_keys_of_its_place() -> None:
    text = TEXT.replace("- lora", "- kind: lora\n    rnak: 4")
    (fault,) = faults_of(text)
    assert fault.startswith(
        f"s.yaml:{line_of(text, 'rnak')} methods.1.rnak: expected a known key ("
    )
    assert "modules" in fault
    assert "seeds" not in fault
    assert fault.endswith("Did you mean 'rank'?")


def test_an_unknown_key_like_no_other_is_to_be_removed() -> None:
    (fault,) = faults_of(TEXT + "zzz: 1\n")
    assert fault.endswith("got 'zzz'. Remove it; see 'clipdrift init' for all keys.")


@pytest.mark.parametrize("key", ['"²"', '"3"', '"a.b"', "1", "null"])
def test_an_odd_key_is_a_fault_and_not_a_crash(key: str) -> None:
    assert faults_of(TEXT + f"{key}: 1\n")


def test_all_faults_at_once_each_with_its_line() -> None:
    text = """\
name: "a/b"
targets: [land-cover]
transfers: []
methods:
  - full_ft
  - kind: lora
    rank: 0
    colour: red
learning_rates: [1e-5, -1]
seeds: [7]
schedule:
  epochs: many
precision: float8
"""
    faults = faults_of(text)
    places = {fault.split(":", 2)[0] + ":" + fault.split(":", 2)[1] for fault in faults}
    assert places == {
        "s.yaml:1 name",
        "s.yaml:3 transfers",
        "s.yaml:7 methods.1.rank",
        "s.yaml:8 methods.1.colour",
        "s.yaml:9 learning_rates.1",
        "s.yaml:12 schedule.epochs",
        "s.yaml:13 precision",
    }
    assert len(faults) == 7
    rank = next(fault for fault in faults if "rank" in fault)
    assert rank == (
        "s.yaml:7 methods.1.rank: expected greater than or equal to 1, got 0. Correct the value."
    )


def test_faults_between_parts_are_all_said_too() -> None:
    text = TEXT.replace("seeds: [7, 11]", "seeds: [7, 7, 11]").replace("[1e-5,", "[1e-4,")
    assert faults_of(text + "splits: {val_fraction: 0}\n") == [
        (
            "s.yaml:8 learning_rates: expected distinct values, got 0.0001 twice. "
            "Remove one of the two."
        ),
        "s.yaml:9 seeds: expected distinct values, got 7 twice. Remove one of the two.",
        (
            "s.yaml:10 splits.val_fraction: expected more than 0 with checkpoint: best_validation, "
            "got 0. Give the validation set some images, or choose checkpoint: last."
        ),
    ]


@pytest.mark.parametrize("key", ["targets", "transfers", "methods", "learning_rates", "seeds"])
def test_an_empty_list_in_the_grid_is_refused(key: str) -> None:
    value = {**yaml.safe_load(TEXT), key: []}
    (fault,) = faults_of(yaml.safe_dump(value, sort_keys=False))
    assert f" {key}: expected " in fault
    assert "at least 1 item" in fault
    assert ", got []. " in fault


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("targets", ["digits", {"name": "digits", "folder": "x"}]),
        ("transfers", ["digits", "digits"]),
        ("methods", ["lora", {"kind": "lora", "rank": 2}]),
    ],
)
def test_names_in_the_grid_are_distinct(key: str, value: list[Any]) -> None:
    (fault,) = faults_of(yaml.safe_dump({**yaml.safe_load(TEXT), key: value}))
    assert f" {key}: expected distinct values, got " in fault


def test_equal_rates_in_other_digits_are_duplicates() -> None:
    (fault,) = faults_of(TEXT.replace("[1e-5, 1e-4]", "[1e-5, 0.00001]"))
    assert "expected distinct values, got 1e-05 twice" in fault


@pytest.mark.parametrize("rate", ["0", "-1e-5", ".nan", ".inf", "11", "fast", "[1]"])
def test_a_rate_that_cannot_train_is_refused(rate: str) -> None:
    (fault,) = faults_of(TEXT.replace("1e-5,", f"{rate},"))
    assert fault.startswith("s.yaml:8 learning_rates.0: expected ")


def test_missing_fields_are_named() -> None:
    faults = faults_of("name: a\ntargets: [digits]\n")
    assert [fault.split(": expected")[0] for fault in faults] == [
        "s.yaml transfers",
        "s.yaml methods",
        "s.yaml learning_rates",
        "s.yaml seeds",
    ]
    assert faults[-1] == "s.yaml seeds: expected a value, got nothing. Add 'seeds'."


def test_an_unknown_method_kind_lists_the_known_ones() -> None:
    (fault,) = faults_of(TEXT.replace("- lora", "- layernorm"))
    assert fault == (
        "s.yaml:7 methods.1.kind: expected one of 'full_ft', 'lora', 'linear_probe', "
        "'last_blocks', 'bitfit', 'lp_ft', 'adapter', 'vpt', 'peft', 'plugin', got "
        "'layernorm'. Choose a method kind."
    )


@pytest.mark.parametrize(
    ("target", "expected", "got"),
    [
        ({"name": "a"}, "exactly one of builtin, folder, files, hub", "none"),
        (
            {"name": "a", "folder": "x", "hub": "y/z"},
            "exactly one of builtin, folder, files, hub",
            "folder, hub",
        ),
        ({"name": "a", "files": {}}, "files with train or test", "neither"),
        (
            {"name": "a", "folder": "x", "templates": ["{} {}"]},
            "templates with exactly one {}",
            "'",
        ),
        (
            {"name": "a", "folder": "x", "templates": []},
            "a list of prompts, or one of single, ensemble",
            "[]",
        ),
        (
            {"name": "a", "folder": "x", "templates": "a photo of a {}"},
            "a list of prompts, or one of single, ensemble",
            "'a photo",
        ),
        ({"name": "a", "folder": "x", "templates": ["a {}", 3]}, "templates with exactly", "3"),
        ({"name": "a", "folder": "x", "class_names": ["b", "b"]}, "two or more distinct", "['b"),
        ({"name": "a", "folder": "x", "probe": {"per_class": 1, "n_images": 9}}, "per_class", "bo"),
        (
            {"name": "a", "folder": "x", "splits": {"val_per_class": 1, "val_fraction": 0.1}},
            "val_per_class or val_fraction",
            "both",
        ),
    ],
)
def test_a_target_that_contradicts_itself_is_refused(
    target: dict[str, Any], expected: str, got: str
) -> None:
    text = yaml.safe_dump({**yaml.safe_load(TEXT), "targets": [target]}, sort_keys=False)
    (fault,) = faults_of(text)
    assert re.match(r"s\.yaml:\d+ targets\.0[._a-z]*: ", fault)
    assert f": expected {expected}" in fault
    assert f", got {got}" in fault


@pytest.mark.parametrize("own", [{"learning_rates": [1e-3]}, {"targets": ["land-cover"]}])
def test_a_matched_method_has_no_grid_of_its_own(own: dict[str, Any]) -> None:
    text = yaml.safe_dump({**yaml.safe_load(TEXT), "methods": [{"kind": "lora", **own}]})
    (fault,) = faults_of(text)
    assert "expected the study's own grid for a matched method" in fault
    assert fault.endswith("Set role: reference, or remove it.")


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "a\\b", ".hidden", "-rf", "a b", "", "a\n", "a" * 65, "ü", "a\0"]
)
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    for key, value in (("name", name), ("targets", [{"name": name, "builtin": "digits"}])):
        text = yaml.safe_dump({**yaml.safe_load(TEXT), key: value}, sort_keys=False)
        (fault,) = faults_of(text)
        assert "name: expected " in fault


def test_a_key_written_twice_is_refused_at_its_second_line() -> None:
    (fault,) = faults_of(TEXT + "seeds: [1]\n")
    assert (
        fault == "s.yaml:10 seeds: expected each key once, got a second one. Remove one of the two."
    )


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n- b\n", "just text\n", "7\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    (fault,) = faults_of(text)
    assert fault.startswith("s.yaml: expected a mapping of study fields, got ")
    assert fault.endswith(". Write a study file with 'clipdrift init' and change it.")


def test_yaml_constructs_no_objects(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    call = f"!!python/object/apply:os.mkdir ['{witness}']"
    (fault,) = faults_of(TEXT.replace("name: small", f"name: {call}"))
    assert "expected valid YAML, got could not determine a constructor" in fault
    assert not witness.exists()


@pytest.mark.parametrize("text", ["name: &a [*a]\n", "name: &a {b: *a}\n"])
def test_a_file_that_contains_itself_is_refused(text: str) -> None:
    assert faults_of(text)


def test_aliases_within_aliases_do_not_take_forever() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    started = time.perf_counter()
    assert faults_of("\n".join(rows))
    assert time.perf_counter() - started < 10  # unfolded, it would be 9**10 items


def alias_bomb() -> list[str]:
    """9**10 items, once unfolded."""
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    return rows + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]


BOMBS = {
    "value": "\n".join(alias_bomb()),
    "key": "\n".join([*alias_bomb(), "? *a9", ": x"]),
    "key_of_mapping": "\n".join([*alias_bomb(), "? {k: *a9}", ": x"]),
    "merge": "\n".join(
        ["a0: &a0 {x: 1}"]
        + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 10)]
    ),
    "sixties": "seeds: [" + ":".join(["1", *["59"] * 300_000]) + "]",
    "sixties_float": "seeds: [" + ":".join(["1", *["59"] * 3_000]) + ".5]",
    "digits": "seeds: [" + "9" * 900_000 + "]",
    "hex": "seeds: [0x" + "f" * 900_000 + "]",
    "long_list": "name: [" + ", ".join(["a"] * 30_000) + "]",
    "unknown_keys": "\n".join(f"k{i:05}: 1" for i in range(20_000)),
    "long_key": "s" * 900_000 + ": 1",
    "digit_key": "9" * 90_000 + ": 1",
    "date": "name: 2001-02-31",
    "date_year": "name: 0000-01-01",
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_cannot_ask_for_much(bomb: str) -> None:
    """Each took minutes, gigabytes or a traceback."""
    started = time.perf_counter()
    for fault in faults_of(BOMBS[bomb]):
        assert len(fault) < 20_000
    assert time.perf_counter() - started < 60


def test_more_faults_than_anyone_mends_are_cut_off() -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec("\n".join(f"k{i:05}: 1" for i in range(2_000)), name="s.yaml")
    faults = str(caught.value).splitlines()
    assert any("(and 9" in fault and "more: " in fault for fault in faults)
    assert faults[-1] == "s.yaml: expected at most 100 faults, got more. Mend these first."
    assert len(faults) < 20


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("? [a, b]\n: c", "keys that are single values, got a list. Put the key in quotes"),
        ("? {a: b}\n: c", "keys that are single values, got a mapping. Put the key in quotes"),
        ("seeds: [1:30]", "numbers in digits, got 1:30, which YAML counts in sixties. Correct it"),
        ("seeds: [" + "1" * 101 + "]", "numbers of at most 100 characters, got one of 101"),
    ],
)
def test_yaml_that_no_study_needs_is_named(line: str, said: str) -> None:
    (fault,) = faults_of(line)
    assert re.match(r"s\.yaml:1 .*: expected ", fault)
    assert said in fault


@pytest.mark.parametrize("tag", ["bool", "int", "float", "timestamp", "binary", "null", "str"])
@pytest.mark.parametrize("value", ["''", "maybe", "'-'", "2001-02-31"])
def test_a_value_that_its_tag_does_not_fit_is_a_fault(tag: str, value: str) -> None:
    assert all("expected" in fault for fault in faults_of(f"seeds: [!!{tag} {value}]"))


def test_an_anchor_may_be_used_twice() -> None:
    text = TEXT.replace("[land-cover]", "[&d land-cover]").replace("- digits", "- *d")
    assert parse_spec(text).transfers[0].builtin == "land-cover"


def test_nesting_beyond_reason_is_refused() -> None:
    assert faults_of("name: " + "[" * 5000 + "]" * 5000)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / "none.yaml")
    assert str(caught.value) == (
        f"{tmp_path / 'none.yaml'}: expected a readable study file, got No such file or directory. "
        "Check the path, or write one with 'clipdrift init'."
    )


def test_a_folder_is_no_study_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected a readable study file, got a folder"):
        load_spec(tmp_path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(TEXT.replace("small", "klein\xfc").encode("latin-1"))
    with pytest.raises(SpecError, match="got not UTF-8 text"):
        load_spec(path)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(TEXT + "#" * 1_000_001)
    with pytest.raises(SpecError, match="got 1 MB, where at most 1 MB are read"):
        load_spec(path)


def test_relative_paths_start_at_the_study_file(tmp_path: Path) -> None:
    place = tmp_path / "studies"
    place.mkdir()
    path = place / "s.yaml"
    value = yaml.safe_load(TEXT) | {
        "backbone": "./clip",
        "targets": [{"name": "a", "folder": "../data/a"}],
        "transfers": [
            {"name": "b", "files": {"test": "b.csv"}},
            {"name": "c", "folder": "/absolute/c"},
            {"name": "d", "folder": "~/d"},
        ],
    }
    path.write_text(yaml.safe_dump(value))
    spec = load_spec(path)
    assert spec.backbone.id == str(place / "clip")
    assert spec.targets[0].folder == str(tmp_path / "data" / "a")
    b, c, d = spec.transfers
    assert b.files is not None
    assert (b.files.train, b.files.test) == (None, str(place / "b.csv"))
    assert (c.folder, d.folder) == ("/absolute/c", str(Path.home() / "d"))


def test_a_home_of_nobody_is_a_plain_name(tmp_path: Path) -> None:
    text = TEXT.replace("[land-cover]", "[{name: a, folder: ~nobody-of-that-name/x}]")
    spec = parse_spec(text, folder=tmp_path)
    assert spec.targets[0].folder == str(tmp_path / "~nobody-of-that-name" / "x")


def test_hub_ids_are_left_alone(tmp_path: Path) -> None:
    spec = parse_spec(TEXT + "backbone: openai/clip-vit-base-patch32\n", folder=tmp_path)
    assert spec.backbone.id == "openai/clip-vit-base-patch32"
    (tmp_path / "mini-clip").mkdir()
    assert parse_spec(TEXT + "backbone: mini-clip\n", folder=tmp_path).backbone.id == "mini-clip"


@pytest.mark.parametrize("written", ["backbone: models/clip", "backbone: {id: models/clip}"])
def test_a_backbone_is_looked_for_beside_the_study_file(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the working folder, where another model of its name may lie."""
    study, other = tmp_path / "study", tmp_path / "other"
    (other / "models" / "clip").mkdir(parents=True)
    study.mkdir()
    (study / "s.yaml").write_text(f"{TEXT}{written}\n")
    monkeypatch.chdir(other)
    with pytest.raises(SpecError) as refused:
        load_spec(study / "s.yaml")
    assert (
        f"s.yaml:{TEXT.count(chr(10)) + 1} backbone.id: expected a hub id, or a path seen from "
        f"{study}, where the study file lies, got 'models/clip', in the working folder "
        "only. Write its path from the study file on."
    ) in str(refused.value)
    (study / "models" / "clip").mkdir(parents=True)
    assert load_spec(study / "s.yaml").backbone.id == str(study / "models" / "clip")


RICH: dict[str, Any] = {
    "description": "Zeilen\nmit # und : und ü",
    "backbone": {"id": "openai/clip-vit-base-patch32", "revision": "main"},
    "targets": [
        {"name": "a", "folder": "/data/a", "epochs": 3, "probe": {"per_class": 2}},
        {"name": "b", "hub": "x/y", "hub_splits": {"train": "train"}, "horizontal_flip": False},
    ],
    "transfers": [{"name": "c", "files": {"test": "/c.csv"}, "templates": ["a {}"], "seed": 3}],
    "methods": [
        {"kind": "lora", "rank": 4, "head_lr": 1e-3},
        {"kind": "full_ft", "head_lr": 1e-4},
        {"kind": "linear_probe", "role": "reference", "learning_rates": [1e-3], "targets": ["a"]},
    ],
    "learning_rates": [1.5e-5, 2e-5, 1e-16],
    "varied": ["head_lr"],
    "checkpoint": "last",
    "splits": {"val_fraction": 0.0},
}


@pytest.mark.parametrize("changes", [{}, RICH])
def test_what_is_dumped_loads_as_the_same_study(changes: dict[str, Any], tmp_path: Path) -> None:
    spec = study(**changes)
    path = tmp_path / "s.yaml"
    path.write_text(dump_spec(spec), encoding="utf-8")
    assert load_spec(path) == spec
    assert dump_spec(load_spec(path)) == dump_spec(spec)


def test_the_schema_line_for_editors_is_allowed() -> None:
    assert parse_spec('"$schema": study.schema.json\n' + TEXT) == parse_spec(TEXT)


def test_a_spec_is_frozen() -> None:
    spec: StudySpec = study()
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"
