"""Damage planted in a live model, and the edits of the finished runs of a study."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import InProcess
from small_models import mini_clip, write_random_clip
from tiny_study import tiny
from typer.testing import CliRunner

import clipdrift
from clipdrift.cli.app import app
from clipdrift.commands.locating import Location
from clipdrift.errors import MethodError, RecordError, SpecError
from clipdrift.records import StudyFolder
from clipdrift.records.located import WHAT, located_path, read_located
from clipdrift.report import audit_report
from clipdrift.study.measure import run_study

WHATS = ["kinds", "attention", "heads"]
WORLD = {"world": {"builtin": "world", "n_images": 60}}


@pytest.fixture(scope="module")
def gauge(cache_dir: Path) -> clipdrift.Gauge:
    return clipdrift.Gauge(
        "mini-clip", probe="digits", transfers=WORLD, device="cpu", cache_dir=cache_dir
    )


def damaged(block: int, *names: str, size: float = 2.0) -> Any:
    """mini-clip with noise on some tensors of one block."""
    model = copy.deepcopy(mini_clip().model)
    draw = torch.Generator().manual_seed(3)
    inside = model.vision_model.encoder.layers[block - 1]
    with torch.no_grad():
        for name, value in inside.named_parameters():
            if name.startswith(names):
                change = torch.randn(value.shape, generator=draw)
                value.add_(size * value.norm() / change.norm() * change)
    return model


def locate(gauge: clipdrift.Gauge, model: Any, what: str, n: int = 60) -> Location:
    return clipdrift.locate(gauge, model, what=[what], n_images=n)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("block", "kind", "names"), [(2, "mlp", ("mlp",)), (4, "attention", ("self_attn",))]
)
def test_a_part_damaged_by_hand_is_named(
    gauge: clipdrift.Gauge, block: int, kind: str, names: tuple[str, ...]
) -> None:
    found = locate(gauge, damaged(block, *names), "weights")
    told = found.carriers["world"]
    assert (told.block, told.kind, told.reason) == (block, kind, None)
    frame = found.to_frame()
    assert {"edit", "block", "kind", "change_pp", "control_pp", "retention_pct"} <= {*frame}
    whole = frame[frame["kind"] == "all"].set_index(["edit", "of"])
    assert whole.loc[("revert", "adapted"), "retention_pct"] == 100
    assert whole.loc[("none", "adapted"), "score"] == whole.loc[("graft", "untouched"), "score"]
    at = frame[(frame["block"] == block) & (frame["kind"] == kind)].set_index("edit")
    lost = -whole.loc[("graft", "untouched"), "change_pp"]
    assert lost > 20
    assert at.loc["revert", "change_pp"] == pytest.approx(lost)
    assert at.loc["graft", "change_pp"] == pytest.approx(-lost)
    assert at.loc["revert", "control_pp"] < at.loc["revert", "change_pp"]
    assert at.loc["graft", "control_pp"] < 0
    others = frame[(frame["block"] != block) & frame["edit"].isin(["revert", "graft"])]
    assert (others.loc[others["kind"] != "all", "change_pp"] == 0).all()


def test_patching_tells_a_damaged_pattern_from_damaged_values(gauge: clipdrift.Gauge) -> None:
    """Queries and keys make the pattern; values and MLP are what is done with it."""
    restored = {}
    for what, names in (
        ("pattern", ("self_attn.q_proj", "self_attn.k_proj")),
        ("values", ("self_attn.v_proj", "mlp")),
    ):
        frame = locate(gauge, damaged(3, *names, size=3.0), "attention", 30).to_frame()
        other = frame[frame["edit"] == "attention_other_model"]
        plain = frame[frame["edit"] == "none"].set_index("of")["score"]
        lost = 100 * (plain["untouched"] - plain["adapted"])
        assert lost > 15
        at = other[other["block"] == 3].set_index("of")["change_pp"] / lost
        everywhere = other[other["block"].isna()].set_index("of")["change_pp"] / lost
        restored[what] = (at["adapted"], -at["untouched"], everywhere["adapted"])
    assert min(restored["pattern"]) > 0.9
    assert max(restored["values"][:2]) < 0.2


def test_what_cannot_be_edited_is_refused_in_words(
    gauge: clipdrift.Gauge, cache_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(MethodError) as refused:
        clipdrift.locate(gauge, copy.deepcopy(mini_clip().model))
    assert str(refused.value.faults[0]) == (
        "model: expected an image encoder that was trained, got one with the untouched weights. "
        "There is nothing to locate."
    )
    with pytest.raises(SpecError) as wrong:
        clipdrift.locate(gauge, damaged(1, "mlp"), what=["limbs"], draws=0, n_images=1)  # type: ignore[list-item]
    assert [str(fault) for fault in wrong.value.faults] == [
        f"--what: expected some of {', '.join(WHAT)}, all, got limbs. Name what to edit.",
        "--draws: expected a whole number from 1 to 100, got 0. Correct the value.",
        "--images: expected a whole number from 2 to 1,000,000, got 1. Correct the value.",
    ]
    for one, other in ((gauge, None), (tmp_path, damaged(1, "mlp"))):
        with pytest.raises(SpecError, match="model: expected"):
            clipdrift.locate(one, other)
    bare = clipdrift.Gauge("mini-clip", probe="digits", device="cpu", cache_dir=cache_dir)
    with pytest.raises(SpecError, match="expected a set of images to read edits on, got none"):
        clipdrift.locate(bare, damaged(1, "mlp"))


@pytest.fixture(scope="module")
def study(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    folder = tmp_path_factory.mktemp("located")
    spec = tiny(
        backbone={"id": str(write_random_clip(folder / "clip"))},
        transfers=[{"name": "digits", "builtin": "digits", "n_images": 20}],
        methods=["full_ft", {"name": "lora", "kind": "lora"}, {"name": "vpt", "kind": "vpt"}],
        seeds=[7, 11],
        learning_rates=[3e-3],
        schedule={"epochs": 1, "batch_size": 20},
        evaluation={"in_full": True},
    )
    outcome = run_study(spec, folder / "study", executor=InProcess(), cache_dir=cache_dir)
    assert outcome.measured == 6
    return StudyFolder(folder / "study")


def test_runs_of_a_study_are_located_and_kept(study: StudyFolder, cache_dir: Path) -> None:
    records = {path: path.read_bytes() for path in study.runs_path.glob("*/record.json")}
    said: list[str] = []
    found = clipdrift.locate(
        study, what=WHATS, n_images=20, workers=2, cache_dir=cache_dir, device="cpu",
        say=said.append,
    )  # fmt: skip
    assert (found.read, found.kept, len(found.left_out)) == (4, 0, 2)
    assert all("vpt" in run_id for run_id in found.left_out)
    assert "expected plain weights to edit, got a model of which no plain weights" in next(
        iter(found.left_out.values())
    )
    assert said[-7].startswith("6 runs, 40 images and up to ")
    assert " passes of an image each, 2 at once: about 1 min, less for runs of" in said[-7]
    assert "1 of 6" in said[-6]
    assert ", 6 of 6, about 1 min left" in said[-1]
    assert {path: path.read_bytes() for path in records} == records
    frame = found.to_frame()
    # What the runs recorded is what is edited: 20 images of 20, 20 of the target's 40.
    for record in study.records()[0]:
        if record.method != "vpt":
            own = frame[(frame["run_id"] == record.run_id) & (frame["dataset"] == "digits")]
            none = own[own["edit"] == "none"].set_index("of")
            recorded = record.result.transfer["digits"]
            assert none.loc["adapted", "score"] == recorded.accuracy
            assert none.loc["untouched", "score"] == recorded.baseline_accuracy
            gone = recorded.in_full["gone_pp"]
            assert none.loc["adapted", "gone_pp"] == pytest.approx(gone)
    heads = frame[frame["head"].notna()]
    assert set(heads["edit"]) == {"attention_other_model"}
    assert set(heads["dataset"]) == {"digits"}
    assert len(heads) == 4 * 2 * heads.groupby(["block", "head"]).ngroups
    lora = frame[frame["run_id"].str.contains("lora") & (frame["kind"] == "mlp")]
    assert (lora["change_pp"] == 0).all()
    assert lora["control_pp"].isna().all()
    assert frame.loc[frame["on_target"], "retention_pct"].isna().all()


def test_the_command_reads_what_is_there_and_reports_it(
    study: StudyFolder, cache_dir: Path
) -> None:
    call = ["locate", str(study.path), "--cache", str(cache_dir), "--device", "cpu"]
    before = {path: path.read_bytes() for path in study.path.rglob("*.json")}
    dry = CliRunner().invoke(app, [*call, "--what", "all", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "6 runs, 60 images and up to" in dry.output
    assert "0 read, 0 already there" in dry.output
    assert {path: path.read_bytes() for path in study.path.rglob("*.json")} == before
    what = [part for name in WHATS for part in ("--what", name)]
    done = CliRunner().invoke(app, [*call, *what, "--images", "20"])
    assert done.exit_code == 0, done.output
    assert "0 read, 4 already there" in done.output
    assert "What carries the loss of transfer in study" in done.output
    analysis = json.loads(study.analysis_path.read_text())
    places = analysis["loss_places"]
    assert {(row["method"], row["transfer"], row["n"]) for row in places} == {
        ("full_ft", "digits", 2), ("lora", "digits", 2)
    }  # fmt: skip
    assert "Where the loss lies" in study.report_path.read_text(encoding="utf-8")
    assert audit_report(study) == []


def test_a_damaged_file_is_read_again_and_runs_without_weights_are_told(
    study: StudyFolder, cache_dir: Path, tmp_path: Path
) -> None:
    copied = StudyFolder(tmp_path / "study")
    shutil.copytree(study.path, copied.path)
    runs = sorted(r.run_id for r in copied.records()[0] if r.method == "lora")
    path = located_path(copied, runs[0])
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "draws": 9}))
    with pytest.raises(RecordError, match="expected edits of a run of version 2, got a damaged"):
        read_located(path)
    next(copied.run_path(runs[1]).glob("**/*.safetensors")).unlink()
    for record in copied.records()[0]:
        if record.method != "lora":
            shutil.rmtree(copied.run_path(record.run_id))
    asked = {"what": WHATS, "n_images": 20, "cache_dir": cache_dir, "device": "cpu"}
    found = clipdrift.locate(copied, **asked)  # type: ignore[arg-type]
    assert (found.read, found.kept, list(found.left_out)) == (1, 0, [runs[1]])
    assert "expected a file as it was saved" in found.left_out[runs[1]]
    assert json.loads(path.read_text())["rows"] == whole["rows"]
    next(copied.run_path(runs[0]).glob("**/*.safetensors")).unlink()
    with pytest.raises(RecordError) as none:
        clipdrift.locate(copied, **asked)  # type: ignore[arg-type]
    assert len(none.value.faults) == 2
    empty = StudyFolder(tmp_path / "empty")
    empty.create()
    with pytest.raises(RecordError, match="expected finished runs with weights, got imported"):
        clipdrift.locate(empty)


def test_a_text_side_that_moved_is_a_part_and_pairs_are_read_by_retrieval(cache_dir: Path) -> None:
    """The image encoder is untouched: every part of it carries nothing, whatever the set."""
    sets = {**WORLD, "scenes": {"builtin": "scenes", "n_images": 24}}
    with pytest.warns(UserWarning, match="captions stand under several images"):
        gauge = clipdrift.Gauge(
            "mini-clip", probe="digits", transfers=sets, device="cpu", cache_dir=cache_dir
        )
    model = copy.deepcopy(mini_clip().model)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        weight = model.text_projection.weight
        weight.add_(2 * weight.std() * torch.randn(weight.shape, generator=draw))
    found = locate(gauge, model, "weights", 40)
    assert list(found.carriers) == ["world"]
    assert found.carriers["world"].words == "text"
    frame = found.to_frame()
    one = frame.set_index(["edit", "of", "kind", "dataset"])[["score", "change_pp"]]
    retention = frame.set_index(["edit", "of", "kind", "dataset"])["retention_pct"]
    reading = gauge.read(model)
    for name in sets:
        back = ("revert", "adapted", "text", name)
        alone = ("graft", "untouched", "text", name)
        assert retention[[back]].tolist() == [100]
        assert one.loc[[back], "change_pp"].item() == -one.loc[[alone], "change_pp"].item()
        assert (one.loc[[("revert", "adapted", "block", name)], "change_pp"] == 0).all()
    recall = one.loc[[("none", "adapted", "all", "scenes")], "score"].item()
    assert recall == pytest.approx(reading.transfer["scenes"].mean_recall)
