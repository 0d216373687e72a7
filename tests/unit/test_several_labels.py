"""Images with any number of labels: data, loss, average precision, and a study of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_process import by_method, measured_study
from PIL import Image
from pydantic import ValidationError
from report_study import write_page
from sklearn.metrics import average_precision_score
from tiny_study import tiny

from clipdrift.analysis.files import write_analysis
from clipdrift.data.sources import open_dataset
from clipdrift.errors import DataError, SpecError
from clipdrift.finished.evaluate import evaluate_run
from clipdrift.finished.export import export_merged
from clipdrift.probes.average_precision import average_precision
from clipdrift.report import audit_report
from clipdrift.spec.datasets import TargetSpec, TransferSpec
from clipdrift.step.objective import each_class_alone

COLOURS = {"red": 0, "green": 1, "blue": 2}


@pytest.mark.parametrize(("seed", "levels"), [(0, 10_000), (1, 4), (2, 2)])
def test_average_precision_is_that_of_scikit_learn(seed: int, levels: int) -> None:
    """Ties included: few levels of scores."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(levels, size=(60, 7)) / levels
    truth = draw.random((60, 7)) < 0.3
    truth[:, 6] = False
    found = average_precision(torch.from_numpy(scores), torch.from_numpy(truth))
    for c in range(6):
        assert float(found[c]) == pytest.approx(average_precision_score(truth[:, c], scores[:, c]))
    assert found[6].isnan()
    scores[truth[:, 0], 0] = np.nan
    last = average_precision(torch.from_numpy(scores), torch.from_numpy(truth))
    assert float(last[0]) == pytest.approx(truth[:, 0].mean())  # found after all others


def test_each_class_is_a_question_of_its_own() -> None:
    logits, truth = torch.randn(5, 3), torch.rand(5, 3) < 0.5
    p = torch.sigmoid(logits)
    expected = -torch.where(truth, p, 1 - p).log().mean()
    torch.testing.assert_close(each_class_alone(logits, truth), expected)


def photos(folder: Path, n: int = 90) -> list[dict[str, Any]]:
    """Squares with a bar of each colour that they are labelled with; some have none."""
    draw, rows = np.random.default_rng(0), []
    for i in range(n):
        pixels = np.full((28, 28, 3), 90, np.uint8)
        own = [name for name in COLOURS if draw.random() < 0.5]
        for name in own:
            pixels[4 + 8 * COLOURS[name] : 8 + 8 * COLOURS[name], :, COLOURS[name]] = 255
        Image.fromarray(pixels + draw.integers(0, 20, pixels.shape, dtype=np.uint8)).save(
            folder / f"{i}.png"
        )
        rows.append({"image": f"{i}.png", "tags": own})
    return rows


def jsonl(folder: Path, rows: list[dict[str, Any]], name: str = "t.jsonl") -> dict[str, Any]:
    (folder / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return {"files": {"train": str(folder / name)}, "labels_column": "tags"}


def test_lists_and_joined_texts_are_the_same_labels(tmp_path: Path) -> None:
    rows = photos(tmp_path, 12)
    lines = [f"{row['image']},{' ; '.join(row['tags'])}" for row in rows]
    (tmp_path / "t.csv").write_text("\n".join(["image,tags", *lines]))
    given = [
        jsonl(tmp_path, rows),
        {"files": {"train": str(tmp_path / "t.csv")}, "labels_column": "tags",
         "label_separator": ";"},
        {**jsonl(tmp_path, [{**row, "tags": [sorted(COLOURS).index(t) for t in row["tags"]]}
                            for row in rows], "n.jsonl"), "class_names": sorted(COLOURS)},
    ]  # fmt: skip
    expected = [[name in row["tags"] for name in sorted(COLOURS)] for row in rows]
    for one in given:
        part = open_dataset(TargetSpec(name="toy", **one), carve=False).parts["train"]
        assert part.class_names == tuple(sorted(COLOURS))
        assert part.several is not None
        assert part.several.tolist() == expected
        assert part.strata == ("images with several labels",)


@pytest.mark.parametrize(
    ("tags", "more", "expected"),
    [
        (["red", "pink"], {"class_names": ["red", "blue"]}, "'pink' in row 0"),
        ([7], {"class_names": ["red", "blue"]}, "7 in row 0"),
        ([{"a": 1}], {"class_names": ["red", "blue"]}, "{'a': 1} in row 0"),
        (["red"], {}, "two or more classes, got ['red']"),
        (["red"], {"class_names": ["red", "gold"]}, "training images of every class, got none of"),
    ],
)
def test_labels_that_are_none_are_named(
    tags: list[Any], more: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    given = jsonl(tmp_path, [{"image": "0.png", "tags": tags}, {"image": "1.png", "tags": ["red"]}])
    with pytest.raises(DataError) as caught:
        open_dataset(TargetSpec(name="toy", **given, **more), carve=False)
    assert any(expected in str(fault) for fault in caught.value.faults)


def test_what_does_not_go_with_several_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="a table of images with several labels"):
        TargetSpec(name="toy", folder="x", labels_column="tags")
    with pytest.raises(ValidationError, match="a list of class_names"):
        TargetSpec(name="toy", hub="x", labels_column="tags", class_names={"a": "b", "c": "d"})
    with pytest.raises(ValidationError, match="a target with labels_column"):
        TransferSpec(name="toy", files={"test": "t.csv"}, labels_column="tags")  # type: ignore[arg-type]
    target = {"name": "toy", **jsonl(tmp_path, [])}
    with pytest.raises(SpecError) as caught:
        tiny(targets=[target], evaluation={"corruptions": ["jpeg"]}, methods=[
            {"name": "flyp", "kind": "full_ft", "loss": "contrastive"},
            {"name": "held", "kind": "full_ft", "head": "frozen", "head_init": "text"},
        ])  # fmt: skip
    told = " ".join(str(fault) for fault in caught.value.faults)
    for expected in ("evaluation.corruptions", "methods.0.loss", "methods.1.head"):
        assert expected in told


@pytest.mark.slow
def test_a_study_of_them_is_scored_by_mean_average_precision(tmp_path: Path) -> None:
    target = {"name": "bars", **jsonl(tmp_path, photos(tmp_path)), "probe": {"n_images": 6},
              "splits": {"val_per_class": 12}}  # fmt: skip
    spec = tiny(
        targets=[target],
        methods=["full_ft", "linear_probe"],
        varied=["projection"],
        schedule={"epochs": 6, "batch_size": 10},
        evaluation={"epoch_transfer_images": 0, "interpolation": [0.5]},
    )
    folder = measured_study(spec, tmp_path / "out", tmp_path / "cache", n_runs=2)
    records = by_method(folder)
    for record in records.values():
        result = record.result
        each = result.test_average_precision
        assert each is not None
        assert list(each) == ["blue", "green", "red"]
        mean = np.mean([value for value in each.values() if value is not None])
        assert (result.score_name, result.test_accuracy) == ("map", None)
        assert result.test_score == pytest.approx(mean)
        assert result.val_score == max(e.val_score or 0 for e in record.history[1:])
        assert result.target_zero_shot is not None
        assert result.target_zero_shot.score_name == "map"
        assert result.extra["interpolation.0.5.test_score"] is not None
    tuned = records["full_ft"]
    assert (tuned.result.test_score or 0) > 0.95
    assert (tuned.result.target_zero_shot.chance or 0) < 0.7  # type: ignore[union-attr]
    compared = evaluate_run(folder.run_path(tuned.run_id), cache_dir=tmp_path / "cache")
    assert [c for c in compared if not c.agrees] == []
    export_merged(folder.run_path(tuned.run_id), tmp_path / "model")
    assert "multi_label_classification" in (tmp_path / "model" / "README.md").read_text()
    analysis = write_analysis(folder)
    cells = {(row["method"], row["metric"]): row["mean"] for row in analysis["cells"]}
    assert cells["full_ft", "test_accuracy"] == pytest.approx(tuned.result.test_score)
    assert [row["detail"] for row in analysis["warnings"] if row["kind"] == "other_score"] == [
        "what tables call accuracy on bars is mean average precision over classes"
    ]
    write_page(folder)
    assert audit_report(folder) == []
