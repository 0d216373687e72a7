"""The studies that redo published ones hold every number of their protocols, typed here again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clipdrift.analysis.questions.reproduction import published
from clipdrift.data.catalogue import catalogue
from clipdrift.run.conditions import leaks
from clipdrift.spec import RunConfig, StudySpec, expand, load_spec
from clipdrift.spec.audit import audit

STUDIES = Path(__file__).parents[2] / "studies"
PRESETS = ["paper-80", "leakage-free-66", "leakage-free-b16"]
HUB = {
    "eurosat": ("tanganke/eurosat", "image", "label"),
    "pets": ("timm/oxford-iiit-pet", "image", "label"),
    "cifar100": ("uoft-cs/cifar100", "img", "fine_label"),
    "cifar10": ("uoft-cs/cifar10", "img", "label"),
}
TRAINED = {"projection": "trained", "head_init": "random", "head_lr": "matched"}
LORA = {"rank": 8, "alpha": 16.0, "dropout": 0.05, "modules": ["q_proj", "v_proj"]}
FREE_SPLITS = {"eurosat": (160, 30, 20), "pets": (40, 10, 6)}  # train, validation, probe per class


def spec_of(preset: str) -> StudySpec:
    return load_spec(STUDIES / f"{preset}.yaml")


def runs_of(preset: str) -> list[RunConfig]:
    return expand(spec_of(preset), precision="float32")


def fields(part: Any, names: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(part, name) for name in names}


def statuses(preset: str) -> dict[str, str]:
    return {row.factor: row.status for row in audit(spec_of(preset))}


def test_paper_80_is_two_targets_two_methods_four_rates_five_seeds() -> None:
    runs = runs_of("paper-80")
    cells = Counter((r.target.name, r.method.name, r.learning_rate) for r in runs)
    assert cells == {
        (target, method, rate): 5
        for target in ("eurosat", "pets")
        for method in ("full_ft", "lora")
        for rate in (1e-6, 5e-6, 1e-5, 5e-5)
    }
    assert len(runs) == 80
    assert {r.seed for r in runs} == {7, 11, 19, 42, 123}


def test_paper_80_has_the_cells_of_the_published_table() -> None:
    table = {tuple(cell[:3]) for cell in published()["paper-80"]["cells"]}
    assert {(r.target.name, r.method.name, r.learning_rate) for r in runs_of("paper-80")} == table


def test_paper_80_trains_as_published() -> None:
    spec = spec_of("paper-80")
    assert spec.backbone.id == "openai/clip-vit-base-patch32"
    assert {t.name: t.epochs for t in spec.targets} == {"eurosat": 20, "pets": 30}
    assert {r.schedule.epochs for r in expand(spec, precision="float32")} == {20, 30}
    schedule = {"batch_size": 64, "weight_decay": 0.01, "warmup_fraction": 0.05, "clip_norm": 1.0}
    schedule |= {"horizontal_flip": True, "max_steps": None, "warmup": "from_zero"}
    assert fields(spec.schedule, schedule) == schedule
    full_ft, lora = spec.methods
    assert [full_ft.kind, lora.kind] == ["full_ft", "lora"]
    assert [m.role for m in spec.methods] == ["matched", "matched"]
    assert fields(full_ft, TRAINED) == fields(lora, TRAINED) == TRAINED
    assert fields(lora, LORA) == LORA
    assert spec.varied == []
    assert (spec.precision, spec.interpolation) == ("bfloat16", "bilinear")


def test_paper_80_reads_what_was_read() -> None:
    spec = spec_of("paper-80")
    (transfer,) = spec.transfers
    assert transfer.templates == ["a photo of a {}"]
    assert (transfer.builtin, transfer.n_images) == ("cifar100", None)
    assert (transfer.spelling, transfer.underscores) == ("data", "kept")
    assert [t.probe for t in spec.targets] == [None, None]
    assert spec.probe.model_dump() == {
        "per_class": None, "n_images": 200, "source": "test", "seed": 42,
    }  # fmt: skip
    assert [t.splits for t in spec.targets] == [None, None]
    assert (spec.splits.val_fraction, spec.splits.train_per_class) == (0, None)
    assert spec.splits.draw == "in_turn"


def test_paper_80_is_called_a_leak_wherever_it_reads_test_images() -> None:
    assert spec_of("paper-80").checkpoint == "paper_test_selected"
    found = statuses("paper-80")
    assert {factor for factor, status in found.items() if status == "leak"} == {
        "checkpoint rule",
        "probe set",
    }
    for run in runs_of("paper-80"):
        assert leaks(run) == [
            "checkpoint selected on the test part: its accuracy is too high",
            "probe images drawn from the test part",
        ]


def test_leakage_free_66_is_48_matched_runs_and_18_of_references() -> None:
    runs = runs_of("leakage-free-66")
    cells = Counter((r.target.name, r.method.name, r.learning_rate) for r in runs)
    matched = {
        (target, method, rate): 3
        for target in ("eurosat", "pets")
        for method in ("full_ft", "lora")
        for rate in (3e-6, 1e-5, 3e-5, 1e-4)
    }
    references = {
        ("eurosat", "linear_probe", 1e-3): 3,
        ("pets", "linear_probe", 1e-3): 3,
        **{("eurosat", "last_block", rate): 3 for rate in (1e-5, 1e-4)},
        **{("eurosat", "lora_frozen_projection", rate): 3 for rate in (1e-5, 1e-4)},
    }
    assert cells == matched | references
    assert (len(runs), sum(matched.values()), sum(references.values())) == (66, 48, 18)
    assert {r.seed for r in runs} == {7, 11, 19}
    assert {r.method.name for r in runs if r.method.role == "matched"} == {"full_ft", "lora"}


def test_leakage_free_66_trains_what_its_names_say() -> None:
    methods = {m.name: m for m in spec_of("leakage-free-66").methods}
    assert {name: m.kind for name, m in methods.items()} == {
        "full_ft": "full_ft",
        "lora": "lora",
        "linear_probe": "linear_probe",
        "last_block": "last_blocks",
        "lora_frozen_projection": "lora",
    }
    frozen = {name for name, m in methods.items() if m.projection == "frozen"}
    assert frozen == {"linear_probe", "lora_frozen_projection"}
    assert methods["last_block"].model_dump()["blocks"] == 1
    for name in ("lora", "lora_frozen_projection"):
        assert fields(methods[name], LORA) == LORA
    assert {(m.head_init, m.head_lr) for m in methods.values()} == {("random", "matched")}


def test_leakage_free_b16_is_a_part_of_66_with_another_backbone() -> None:
    runs = runs_of("leakage-free-b16")
    cells = Counter((r.target.name, r.method.name, r.learning_rate) for r in runs)
    assert cells == {
        ("eurosat", method, rate): 3
        for method in ("full_ft", "lora")
        for rate in (1e-5, 3e-5, 1e-4)
    }
    assert (len(runs), {r.seed for r in runs}) == (18, {7, 11, 19})
    assert {r.backbone.id for r in runs} == {"openai/clip-vit-base-patch16"}
    there = {r.name: r for r in runs_of("leakage-free-66")}
    assert {r.backbone.id for r in there.values()} == {"openai/clip-vit-base-patch32"}
    for run in runs:
        twin = there[run.name]
        assert run.model_dump(exclude={"backbone"}) == twin.model_dump(exclude={"backbone"})


@pytest.mark.parametrize("preset", ["leakage-free-66", "leakage-free-b16"])
def test_leakage_free_presets_keep_the_test_part_for_the_end(preset: str) -> None:
    spec = spec_of(preset)
    assert spec.checkpoint == "best_validation"
    assert "leak" not in statuses(preset).values()
    for run in runs_of(preset):
        train, val, probe = FREE_SPLITS[run.target.name]
        assert leaks(run) == []
        assert (run.splits.train_per_class, run.splits.val_per_class) == (train, val)
        assert (run.probe.per_class, run.probe.source) == (probe, "train")
        assert (run.splits.seed, run.probe.seed, run.splits.test_per_class) == (0, 0, None)
        assert run.splits.draw == "in_turn"
        assert (run.precision, run.interpolation) == ("float32", "bilinear")
    schedule = {"epochs": 6, "batch_size": 32, "weight_decay": 0.01, "warmup_fraction": 0.05}
    schedule |= {"clip_norm": 1.0, "horizontal_flip": True, "max_steps": None}
    assert spec.schedule.model_dump() == {**schedule, "warmup": "from_zero"}


@pytest.mark.parametrize("preset", ["leakage-free-66", "leakage-free-b16"])
def test_leakage_free_presets_read_1000_transfer_images_an_epoch_and_all_at_the_end(
    preset: str,
) -> None:
    spec = spec_of(preset)
    assert spec.evaluation.epoch_transfer_images == 1000
    found = {t.name: (t.builtin, t.n_images, t.templates) for t in spec.transfers}
    assert found == {
        "cifar100": ("cifar100", None, ["a photo of a {}."]),
        "cifar10": ("cifar10", 2000, ["a photo of a {}."]),
    }
    for transfer in spec.transfers:
        assert (transfer.spelling, transfer.underscores) == ("data", "spaces")
        assert (transfer.seed, transfer.draw) == (0, "in_turn")


@pytest.mark.parametrize("preset", ["leakage-free-66", "leakage-free-b16"])
def test_leakage_free_presets_interpolate_weights_and_classify_seven_corrupted_test_parts(
    preset: str,
) -> None:
    spec = spec_of(preset)
    assert spec.evaluation.interpolation == [0, 0.25, 0.5, 0.75, 1]
    assert spec.evaluation.interpolation_paths == ["encoder", "factors"]
    eurosat, *others = spec.targets
    assert [target.corrupted for target in others] == [[]] * len(others)
    found = {}
    for part in eurosat.corrupted:
        entry = catalogue()[str(part.builtin)]
        assert (entry.hub, entry.splits.train) == ("tanganke/eurosat", None)
        assert entry.class_names == catalogue()["eurosat"].class_names
        assert (part.seed, part.draw) == (0, "in_turn")
        found[part.name] = (entry.splits.test, part.n_images)
    kinds = ["contrast", "gaussian_noise", "impulse_noise", "jpeg_compression", "motion_blur"]
    assert found == {kind: (kind, 1000) for kind in [*kinds, "pixelate", "spatter"]}


@pytest.mark.parametrize("preset", PRESETS)
def test_datasets_are_those_of_the_protocol_with_readable_pinned_class_names(preset: str) -> None:
    spec = spec_of(preset)
    for part in [*spec.targets, *spec.transfers]:
        entry = catalogue()[str(part.builtin)]
        assert (entry.hub, entry.image_column, entry.label_column) == HUB[part.name]
        assert (entry.splits.train, entry.splits.test) == ("train", "test")
        names = entry.class_names or []
        assert len(names) == {"eurosat": 10, "pets": 37, "cifar100": 100, "cifar10": 10}[part.name]
        assert not [name for name in names if name != name.casefold() or "_" in name]
    assert "annual crop land" in (catalogue()["eurosat"].class_names or [])
    assert "abyssinian" in (catalogue()["pets"].class_names or [])


@pytest.mark.parametrize(("preset", "count"), zip(PRESETS, [80, 66, 18], strict=True))
def test_counts_are_the_published_ones(preset: str, count: int) -> None:
    assert len(runs_of(preset)) == count


@pytest.mark.slow
def test_plan_counts_without_a_network_and_says_why_there_is_no_estimate(tmp_path: Path) -> None:
    preset, count = "leakage-free-66", 66
    offline = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, "-m", "clipdrift", "plan", str(STUDIES / f"{preset}.yaml")]
    started = time.monotonic()
    done = subprocess.run(
        [*words, "--json", "--cache", str(tmp_path)],
        env=offline, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    shown = json.loads(done.stdout)
    assert (shown["n_runs"], len(shown["runs"]), shown["study"]) == (count, count, preset)
    assert (shown["estimate"]["seconds"], shown["estimate"]["disk_bytes"]) == (None, None)
    assert "HF_HUB_OFFLINE set and no cached copy" in shown["estimate"]["reason"]
    # Importing torch takes most of it; asking the hub again and again would take minutes.
    assert time.monotonic() - started < 60
