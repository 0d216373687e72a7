"""Pairs and classes through one study: training, retrieval, records, and all that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import measured_study
from report_study import write_page
from small_models import mini_clip
from tiny_study import tiny
from transformers import AutoTokenizer, CLIPModel

from clipdrift.analysis.files import write_analysis
from clipdrift.commands.measuring import check
from clipdrift.data.drawn.scenes import render_scenes
from clipdrift.data.images import Images
from clipdrift.errors import SpecError
from clipdrift.finished.after import Asked, read_after_training
from clipdrift.finished.evaluate import evaluate_run
from clipdrift.finished.export import export_merged
from clipdrift.materials import load_materials
from clipdrift.methods.adapted import reload
from clipdrift.probes.retrieval import chance_recall, retrieval
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.transfer import RETRIEVAL_NUMBERS
from clipdrift.report import audit_report
from clipdrift.report.answer import answers
from clipdrift.report.read import read_study
from clipdrift.spec import RunConfig
from clipdrift.training.loop import epoch_captions

METHODS: list[dict[str, Any]] = [
    {"name": "both", "kind": "full_ft", "loss": "contrastive", "tower": "both"},
    {"name": "text", "kind": "lora", "loss": "contrastive", "tower": "text", "rank": 4},
    {"name": "vision", "kind": "last_blocks", "loss": "contrastive", "positives": "caption"},
]
SCENES = {
    "name": "scenes",
    "builtin": "scenes",
    "splits": {"train_per_class": 80, "val_per_class": 30, "test_per_class": 60},
    "probe": {"n_images": 12},
}


@pytest.fixture(scope="module")
def study(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    spec = tiny(
        targets=[SCENES, {"name": "land-cover", "builtin": "land-cover"}],
        transfers=[
            {"name": "world", "builtin": "world", "n_images": 100},
            {"name": "pictures", "builtin": "scenes", "n_images": 50},
        ],
        methods=METHODS,
        learning_rates=[2e-3],
        schedule={"epochs": 2, "batch_size": 40, "micro_batch": 16},
        evaluation={"epoch_transfer_images": 20, "interpolation": [0.5]},
    )
    out = tmp_path_factory.mktemp("pairs") / "study"
    return measured_study(spec, out, cache_dir, n_runs=2 * len(METHODS))


@pytest.fixture(scope="module")
def records(study: StudyFolder) -> dict[tuple[str, str], RunRecord]:
    found, faults = study.records()
    assert faults == []
    return {(record.target, record.method): record for record in found}


def test_pairs_and_classes_have_a_score_each(
    records: dict[tuple[str, str], RunRecord],
) -> None:
    for (target, _), record in records.items():
        result = record.result
        if target == "land-cover":
            assert (result.score_name, result.test_retrieval) == ("accuracy", None)
            assert (result.val_score, result.test_score) == (
                result.val_accuracy, result.test_accuracy
            )  # fmt: skip
            continue
        found, own = result.test_retrieval, result.target_zero_shot
        assert found is not None
        assert own is not None
        assert (result.score_name, result.test_accuracy, result.val_accuracy) == (
            "mean_recall", None, None
        )  # fmt: skip
        assert result.test_score == found.mean_recall == own.mean_recall
        assert result.val_score == max(e.val_score or 0 for e in record.history[1:])
        assert result.extra["interpolation.0.5.test_score"] is not None
        assert not any("accuracy" in n for n in result.extra if "transfer.world" not in n)
        assert record.history[0].transfer["pictures"].retention_pct in (100.0, None)
    both = records["scenes", "both"].result
    assert both.test_score is not None
    assert both.target_zero_shot is not None
    assert both.test_score > (both.target_zero_shot.baseline_mean_recall or 0)  # it learned


def test_numbers_are_those_of_the_saved_weights(
    study: StudyFolder, records: dict[tuple[str, str], RunRecord], cache_dir: Path, tmp_path: Path
) -> None:
    """By transformers alone: an exported CLIP finds the same captions."""
    record = records["scenes", "both"]
    spec = study.read_spec()
    assert spec is not None
    test = load_materials(spec, cache_dir=cache_dir).targets["scenes"].test
    assert len(test) == 60
    export_merged(study.run_path(record.run_id), tmp_path / "out")
    assert "To find images by a text" in (tmp_path / "out" / "README.md").read_text()
    whole = CLIPModel.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    captions = test.captions
    assert captions is not None
    with torch.no_grad():
        values = mini_clip().encoder().normalise(torch.from_numpy(test.take(slice(0, 60))))
        shown = whole.get_image_features(pixel_values=values).pooler_output
        tokens = tokenizer(captions.texts, padding=True, return_tensors="pt")
        said = whole.get_text_features(**tokens).pooler_output
    owner, text = torch.from_numpy(captions.owner), torch.from_numpy(captions.text)
    found = retrieval(shown, said, owner, text)
    stated = record.result.test_retrieval
    assert stated is not None
    for name in RETRIEVAL_NUMBERS:
        assert getattr(stated, name) == pytest.approx(found[name], abs=0.02), name
    own = record.result.target_zero_shot
    assert own is not None
    assert own.chance == pytest.approx(chance_recall(owner, text))
    drawn = render_scenes(300, seed=42)[1]
    numbers = [int(str(test.names[place]).split()[-1]) for place in test.index]
    texts = [t for number in numbers for t in drawn[number]]
    assert [captions.texts[t] for t in captions.text] == texts


def test_saved_runs_measure_the_same_again(
    study: StudyFolder, records: dict[tuple[str, str], RunRecord], cache_dir: Path
) -> None:
    for name in ("both", "text", "vision"):
        run = study.run_path(records["scenes", name].run_id)
        compared = evaluate_run(run, cache_dir=cache_dir)
        assert [c for c in compared if not c.agrees] == []
        assert {"test_score", "test_retrieval.i2t_r1", "transfer.pictures.mean_recall"} <= {
            c.name for c in compared
        }
        config = RunConfig.model_validate(records["scenes", name].config)
        model = reload(mini_clip(), config.method, 0, run)
        assert model.head.weight.shape == (0, 64)


def test_all_that_reads_accuracy_reads_the_score(
    study: StudyFolder, records: dict[tuple[str, str], RunRecord], cache_dir: Path
) -> None:
    done = read_after_training(study, Asked({"scaled": [1.0]}), cache_dir=cache_dir)
    assert (done.read, done.left_out) == (len(records), {})
    analysis = write_analysis(study)
    cells = {
        (row["target"], row["method"], row["metric"]): row
        for row in analysis["cells"]
        if row["role"] == "matched"
    }
    for (target, method), record in records.items():
        row = cells[target, method, "test_accuracy"]
        assert row["mean"] == pytest.approx(record.result.test_score)
        pictures = record.result.transfer["pictures"]
        mean = cells[target, method, "transfer.pictures.mean_recall"]["mean"]
        assert mean == pytest.approx(pictures.mean_recall)
    assert cells["scenes", "both", "test_retrieval.t2i_r10"]["mean"] is not None
    assert cells["land-cover", "both", "test_retrieval.t2i_r10"]["mean"] is None
    assert cells["scenes", "both", "test_accuracy"]["interval_over"] is None  # one seed, no images
    other = [row for row in analysis["warnings"] if row["kind"] == "other_score"]
    assert [row["target"] for row in other] == ["scenes"]
    chosen = [row for row in analysis["choice"] if row["target"] == "scenes" and row["method"]]
    assert {row["selected_on"] for row in chosen} == {"val_accuracy"}
    for row in chosen:
        result = records["scenes", row["method"]].result
        if row["weights"] == "adapted":
            assert row["accuracy"] == pytest.approx(result.val_score)
            assert row["test_accuracy"] == pytest.approx(result.test_score)
        elif row["weights"] == "interpolated":
            extra = result.extra["interpolation.0.5.test_score"]
            assert row["test_accuracy"] == pytest.approx(extra)
    assert {row["weights"] for row in chosen} >= {"adapted", "interpolated"}
    write_page(study)
    assert audit_report(study) == []
    pairs, classes = answers(read_study(study))
    if pairs.title != "scenes":
        pairs, classes = classes, pairs
    heads = [[column.label for column in one.table.columns] for one in (pairs, classes)]
    assert "Test mean recall (%)" in heads[0]
    assert "Test accuracy (%)" in heads[1]
    text = " ".join(part for one in pairs.sentences for part in one if isinstance(part, str))
    assert "validation accuracy" not in text
    assert "In mean recall and retention" in text


def test_captions_are_drawn_by_seed_epoch_and_image(cache_dir: Path) -> None:
    materials = load_materials(tiny(targets=[SCENES], methods=METHODS[:1]), cache_dir=cache_dir)
    train: Images = materials.targets["scenes"].train
    captions = train.captions
    assert captions is not None
    first, again, later = (epoch_captions(captions, 7, epoch) for epoch in (1, 1, 2))
    assert (first == again).all()
    assert (first != later).any()
    for i, text in enumerate(first):
        assert text in captions.text[captions.owner == i]


def test_check_tells_captions_cut_and_shared(cache_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    from PIL import Image

    for i in range(40):
        Image.new("RGB", (28, 28), (6 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
        words = " ".join(["red"] * (90 if i < 4 else 3))
        (tmp_path / "photos" / f"{i}.txt").write_text(f"{words} {i}\na red wall")
    target = {"name": "walls", "folder": str(tmp_path / "photos"), "caption_column": "txt",
              "probe": {"n_images": 4}, "splits": {"val_per_class": 5}}  # fmt: skip
    found = check(tiny(targets=[target], methods=METHODS[:1]), cache_dir=cache_dir)
    told = found["targets"]["walls"]["prompts_not_read"]
    assert told[0].startswith("walls: 4 of 41 captions (9.8%) are cut to 77 tokens ('red red")
    assert "1 of 41 captions stand under several images ('a red wall')" in told[1]
    assert found["targets"]["walls"]["captions"] == 2 * found["targets"]["walls"]["train"]


def test_a_head_on_pairs_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        tiny(targets=[SCENES], methods=["full_ft", {**METHODS[2], "positives": "class"}],
             evaluation={"corruptions": ["jpeg"]})  # fmt: skip
    told = "\n".join(str(fault) for fault in caught.value.faults)
    assert len(caught.value.faults) == 3
    for expected in (
        "on target scenes, whose images have captions and no classes, got cross_entropy",
        "pair or caption on target scenes, whose images have captions and no classes, got class",
        "evaluation.corruptions: expected none with target scenes",
    ):
        assert expected in told
