"""Transfer sets read in full: a record against transformers, scikit-learn and its own bits."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from in_process import by_method, measured_study
from report_study import write_page
from scipy.special import log_softmax
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss
from tiny_study import tiny
from typer.testing import CliRunner

import clipdrift
from clipdrift.analysis.files import write_analysis
from clipdrift.cli.app import app
from clipdrift.errors import RecordError
from clipdrift.finished.evaluate import evaluate_run
from clipdrift.materials import load_materials
from clipdrift.probes.readout import RIDGE
from clipdrift.reading.gauge import Gauge
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.report import audit_report, write_report
from clipdrift.report.page_reader import read_page
from clipdrift.spec import StudySpec

SPEC = tiny(
    transfers=[{"name": "world", "builtin": "world", "n_images": 400}],
    methods=["full_ft", {"kind": "linear_probe", "role": "reference", "learning_rates": [1e-2]}],
    learning_rates=[3e-3],
    evaluation={"epoch_transfer_images": 20, "in_full": True},
)


@pytest.fixture(scope="module")
def study(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    return measured_study(SPEC, tmp_path_factory.mktemp("full") / "out", cache_dir, n_runs=2)


@torch.inference_mode()
def untouched_embeddings(spec: StudySpec, cache_dir: Path) -> tuple[np.ndarray, ...]:
    """Image and class embeddings at unit length by transformers alone, labels, logit scale."""
    from transformers import AutoModel, AutoTokenizer

    folder = Path(str(files("clipdrift") / "assets" / "mini-clip"))
    clip = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    transfer = load_materials(spec, cache_dir=cache_dir).transfers["world"]
    pixels = torch.from_numpy(transfer.images.take(slice(None)).astype(np.float32) / 127.5 - 1)
    tokens = tokenizer([group[0] for group in transfer.prompts], padding=True, return_tensors="pt")
    out = clip(pixel_values=pixels.permute(0, 3, 1, 2), **tokens)
    scale = clip.logit_scale.exp().numpy()
    return out.image_embeds.numpy(), out.text_embeds.numpy(), transfer.images.labels, scale


def halves_by_hand(labels: np.ndarray) -> np.ndarray:
    seen: dict[int, int] = {}
    out = []
    for label in labels.tolist():
        out.append(seen.get(label, 0) % 2 == 0)
        seen[label] = seen.get(label, 0) + 1
    return np.array(out)


def test_the_untouched_model_reads_as_by_transformers_and_scikit_learn(
    study: StudyFolder, cache_dir: Path
) -> None:
    images, texts, labels, scale = untouched_embeddings(SPEC, cache_dir)
    first, classes = halves_by_hand(labels), np.unique(labels)
    right = 0
    for half in (first, ~first):
        x, y = images[~half].astype(float), labels[~half]
        alpha = RIDGE * np.square(x - x.mean(axis=0)).sum() / x.shape[1]
        scores = Ridge(alpha=alpha).fit(x, (y[:, None] == classes) * 1.0).predict(images[half])
        right += (classes[scores.argmax(axis=1)] == labels[half]).sum()
    log_p = log_softmax(scale * images.astype(float) @ texts.T.astype(float), axis=1)
    for record in by_method(study).values():
        found = record.result.transfer["world"].in_full
        assert found["baseline_ridge_accuracy"] == pytest.approx(right / len(labels), abs=2 / 400)
        nll = log_loss(labels, np.exp(log_p), labels=range(len(texts)))
        assert found["baseline_nll"] == pytest.approx(nll, rel=1e-4)  # of float32 embeddings


def test_where_no_embedding_moves_nothing_is_lost_gone_or_flipped(study: StudyFolder) -> None:
    found = by_method(study)["linear_probe"].result.transfer["world"].in_full
    assert {found[name] for name in ("lost_pp", "gone_pp", "misaligned_pp", "churn")} == {0.0}
    names = [name for name in found if f"baseline_{name}" in found]
    assert len(names) == 14
    for name in names:
        assert found[name] == found[f"baseline_{name}"], name


def test_the_loss_is_split_and_flips_are_those_of_single_images(study: StudyFolder) -> None:
    record = by_method(study)["full_ft"]
    read, full = record.result.transfer["world"], record.result.transfer["world"].in_full
    was, now = (
        record.result.correct[f"transfer.world.{name}"].hits
        for name in ("baseline_accuracy", "accuracy")
    )
    assert full["lost_pp"] == pytest.approx(-(read.delta_accuracy_pp or 0.0), abs=1e-9)
    gone = 100 * ((full["baseline_ridge_accuracy"] or 0) - (full["ridge_accuracy"] or 0))
    assert full["gone_pp"] == pytest.approx(gone)
    assert full["misaligned_pp"] == pytest.approx((full["lost_pp"] or 0.0) - gone)
    assert full["negative_flips"] == (was & ~now).mean() > 0
    assert full["positive_flips"] == (now & ~was).mean()
    assert (full["churn"] or 0) >= (was != now).mean()
    assert record.result.extra["test_nll"] == pytest.approx(record.result.test_loss, rel=1e-6)
    assert 0 <= (record.result.extra["test_ece"] or 0) <= 1


def test_saved_runs_read_the_same_in_full_again(study: StudyFolder, cache_dir: Path) -> None:
    record = by_method(study)["full_ft"]
    rows = {
        row.name: row for row in evaluate_run(study.run_path(record.run_id), cache_dir=cache_dir)
    }
    assert {"transfer.world.gone_pp", "transfer.world.baseline_ece", "extra.test_ece"} <= set(rows)
    assert [row for row in rows.values() if not row.agrees] == []


def test_what_each_image_was_taken_for_is_kept_and_told_by_class(study: StudyFolder) -> None:
    record = by_method(study)["full_ft"]
    assert "transfer_images.parquet" in record.files
    found = pd.read_parquet(study.run_path(record.run_id) / "transfer_images.parquet")
    read = record.result.transfer["world"]
    assert len(found) == 400
    assert (found["predicted"] == found["label"]).mean() == read.accuracy
    assert (found["baseline_predicted"] == found["label"]).mean() == read.baseline_accuracy
    assert ((found["margin"] > 0) == (found["predicted"] == found["label"])).all()
    done = CliRunner().invoke(app, ["lost", str(study.path), "--json"], catch_exceptions=False)
    rows = [row for row in json.loads(done.stdout) if row["method"] == "full_ft"]
    assert len(rows) == found["label"].nunique()
    weighted = sum(row["n_images"] * row["change_pp"] for row in rows) / 400
    assert weighted == pytest.approx(read.delta_accuracy_pp)
    worst = found[(found["label"] == rows[0]["class_name"])]
    fell = worst[(worst["baseline_predicted"] == worst["label"])]["predicted"].value_counts()
    assert fell.drop(rows[0]["class_name"], errors="ignore").max() == fell[rows[0]["fell_into"]]
    shown = CliRunner().invoke(app, ["lost", str(study.path), "--top", "2"]).stdout
    assert "world after full_ft at 0.003 on land-cover" in shown


def test_a_study_that_was_not_read_in_full_is_told_how(tmp_path: Path, cache_dir: Path) -> None:
    out = measured_study(tiny(), tmp_path / "out", cache_dir, n_runs=1)
    with pytest.raises(RecordError, match=r"evaluation: \{in_full: true\}"):
        clipdrift.lost(out.path)


def test_the_page_says_what_is_hidden_and_what_is_gone(study: StudyFolder) -> None:
    write_analysis(study)
    write_page(study)
    texts = read_page(study.report_path.read_text(encoding="utf-8")).items.values()
    shown = [item.text for item in texts if item.label.startswith("table hidden-0")]
    assert any("Misaligned (lost less gone), world (pp)" in text for text in shown)
    full = by_method(study)["full_ft"].result.transfer["world"].in_full
    assert f"{full['gone_pp']:.1f}".replace("-", "−") in " ".join(shown)
    assert audit_report(study) == []


@pytest.mark.usefixtures("no_figures")
def test_pictures_are_those_of_the_listed_images_where_they_may_be_shown(
    study: StudyFolder, tmp_path: Path
) -> None:
    analysis = write_analysis(study)
    rows = analysis["lost_images"]
    kept = study.run_path(by_method(study)["full_ft"].run_id) / "lost_images"
    assert {row["file"] for row in rows} == {path.name for path in kept.glob("*.png")} != set()
    assert {(row["licence"], row["reason"]) for row in rows} == {("Apache-2.0", None)}
    assert len({row["class_name"] for row in rows}) == len(rows) <= 4
    for row in rows:
        assert row["margin_before"] > 0 > row["margin_now"]
    page = write_page(study).read_text(encoding="utf-8")
    section = page[page.index('<section id="in-full">') : page.index('<section id="dose">')]
    assert section.count("data:image/png;base64,") == len(rows)

    silent = StudyFolder(tmp_path / "silent")
    shutil.copytree(study.path, silent.path)
    for record in silent.records()[0]:
        record.provenance.pop("licences")
        atomic_write(silent.record_path(record.run_id), record.to_json())
    for pictures in (False, True):
        page = write_report(silent, pictures=pictures).read_text(encoding="utf-8")
        section = page[page.index('<section id="in-full">') : page.index('<section id="dose">')]
        assert section.count("data:image/png;base64,") == (len(rows) if pictures else 0)
        assert ("no licence is recorded" in section) != pictures
        assert audit_report(silent) == []


def test_a_gauge_of_ones_own_reads_in_full(cache_dir: Path) -> None:
    gauge = Gauge(
        probe={"builtin": "digits", "n_images": 20},
        transfers={"world": {"builtin": "world", "n_images": 400}},
        cache_dir=cache_dir,
        in_full=True,
    )
    model = gauge.backbone.model
    found = gauge.read(model).transfer["world"].in_full
    assert (found["lost_pp"], found["gone_pp"]) == (0.0, 0.0)


def test_records_without_it_are_as_they_were(study: StudyFolder) -> None:
    plain = tiny()
    assert "in_full" not in plain.evaluation.model_dump()
    record = by_method(study)["linear_probe"]
    assert record.schema_version == 2
    for read in (record.result.transfer["world"], record.result.target_zero_shot):
        assert read is not None
        read.in_full = {}
    record.schema_version = 1
    again = RunRecord.model_validate_json(record.to_json()).model_dump(mode="json")
    assert "in_full" not in again["result"]["transfer"]["world"]
    assert again["schema_version"] == 1
