"""Results as peft's method_comparison and CLIP_benchmark write them become records."""

from __future__ import annotations

import csv
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from clipdrift.analysis.files import write_analysis
from clipdrift.errors import RecordError
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.imported import import_runs


def peft_result(name: str, rate: float, **more: Any) -> dict[str, Any]:
    """A result file of peft's MetaMathQA, with the keys that are read and some that are not."""
    metrics = [
        {"step": 250, "valid accuracy": 0.25, "train loss": 0.9, "tokens / sec": 7299.5},
        {"step": 500, "valid accuracy": 0.375, "train loss": 0.75},
        {"step": 500, "test accuracy": 0.5, "train loss": 0.625, "forgetting": 0.0625},
    ]
    return {
        "run_info": {
            "total_time": 1153.5,
            "experiment_name": name,
            "train_config": {
                "model_id": "meta-llama/Llama-3.2-3B",
                "seed": 0,
                "optimizer_kwargs": {"lr": rate, "weight_decay": 0.1},
            },
            "peft_config": {"r": 32, "rank_pattern": {}, "target_modules": ["q_proj"]},
        },
        "train_info": {
            "accelerator_memory_max": 22292725760,
            "train_time": 941.25,
            "file_size": 36715216,
            "num_trainable_params": 9175040,
            "num_total_params": 3221924864,
            "status": "success",
            "metrics": metrics,
            **more,
        },
        "meta_info": {"dataset_info": {"metamath": {"sha": "aa4f"}, "gsm8k": {"sha": "7403"}}},
    }


def records(folder: Path) -> dict[str, RunRecord]:
    found, faults = StudyFolder(folder).records()
    assert faults == []
    return {record.method: record for record in found}


def test_results_of_peft_need_no_map(tmp_path: Path) -> None:
    place = tmp_path / "results"
    place.mkdir()
    lora, ended = peft_result("lora/r32", 1e-4), peft_result("ia3/x", 5e-3, status="canceled")
    ended["train_info"]["metrics"] = []
    (place / "lora--r32.json").write_text(json.dumps(lora))
    (place / "ia3--x.json").write_text(json.dumps(ended))
    summary = import_runs(place, None, tmp_path / "out")
    assert (summary.n_rows, summary.n_records, summary.extra_signals) == (2, 2, ())
    found = records(tmp_path / "out")
    one = found["lora/r32"]
    assert (one.backbone, one.target) == ("meta-llama/Llama-3.2-3B", "MetaMathQA")
    assert (one.learning_rate, one.seed, one.status) == (1e-4, 0, "finished")
    assert (one.result.val_accuracy, one.result.test_accuracy) == (0.375, 0.5)
    assert one.result.extra == {
        "forgetting_nats": 0.0625, "train_loss": 0.625, "file_bytes": 36715216.0,
    }  # fmt: skip
    assert (one.result.parameters_trained, one.result.parameters_total) == (9175040, 3221924864)
    assert one.timing == {
        "train_seconds": 941.25, "wall_seconds": 1153.5, "peak_memory_bytes": 22292725760.0,
    }  # fmt: skip
    assert one.result.transfer == {}
    assert "reads no zero-shot accuracy, so retention is not known" in one.undefined["transfer"]
    data = (place / "lora--r32.json").read_bytes()
    assert one.provenance["imported"] == {
        "file": "lora--r32.json", "sha256": sha256(data).hexdigest(),
    }  # fmt: skip
    assert (found["ia3/x"].status, found["ia3/x"].result.test_accuracy) == ("failed", None)
    assert {row["method"] for row in write_analysis(StudyFolder(tmp_path / "out"))["cells"]} == {
        "lora/r32"
    }
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("record.json")}
    import_runs(place, None, tmp_path / "out")
    assert before == {path: path.read_bytes() for path in before}


def test_what_of_peft_has_no_accuracy_is_refused(tmp_path: Path) -> None:
    drawn = peft_result("boft/flux", 1e-4)
    drawn["train_info"]["metrics"] = [{"test dino_similarity": 0.5, "drift": 0.25}]
    (tmp_path / "boft.json").write_text(json.dumps(drawn))
    with pytest.raises(RecordError) as caught:
        import_runs(tmp_path / "boft.json", None, tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'boft.json'} boft.json: expected a result with a test accuracy, got test "
        "dino_similarity. Import the results of MetaMathQA; no other task of peft's comparison has "
        "one."
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "expected a JSON object, got other text"),
        ("{", "expected a JSON object, got other text"),
        ("[" * 100_000, "expected a JSON object, got other text"),
        ('{"a": 1}', "expected a map of columns (--map)"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RecordError) as caught:
        import_runs(tmp_path, None, tmp_path / "out")
    assert said in str(caught.value)


def test_json_of_any_shape_is_read_under_a_map_of_paths(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for seed in (1, 2):
        body = {"cfg": {"lr": 1e-4, "seed": seed}, "end": {"acc": 75 + seed}, "note": "x"}
        (runs / f"{seed}.json").write_text(json.dumps(body))
    text = (
        "columns: {cfg.lr: lr, cfg.seed: seed, end.acc: test_accuracy}\n"
        "units: {test_accuracy: percent}\nconstants: {target: pets, method: lora}"
    )
    (tmp_path / "map.yaml").write_text(text)
    import_runs(runs, tmp_path / "map.yaml", tmp_path / "out")
    found, _ = StudyFolder(tmp_path / "out").records()
    assert sorted((r.seed, r.result.test_accuracy) for r in found) == [(1, 0.76), (2, 0.77)]
    (tmp_path / "map.yaml").write_text(text.replace("end.acc", "end.accu"))
    with pytest.raises(RecordError, match=r"none at 'end.accu'. Did you mean 'end.acc'\?"):
        import_runs(runs, tmp_path / "map.yaml", tmp_path / "out2")


READ = {
    ("ViT-B-32", "openai"): {"vtab/pets": 0.875, "cifar10": 0.875, "vtab/cifar100": 0.5},
    ("ViT-B-32", "ckpt/a.pt"): {"vtab/pets": 0.9375, "cifar10": 0.4375, "vtab/cifar100": 0.25},
    ("ViT-L-14", "openai"): {"vtab/pets": 0.9375},
}
MAP = """
clip_benchmark:
  baseline: ViT-B-32 openai
  runs:
    ViT-B-32 ckpt/a.pt: {target: vtab/pets, method: lora, lr: 1e-4, seed: 7}
constants: {transfer.cifar10.n_images: 10000, transfer.cifar10.n_classes: 10}
"""


def rows() -> list[dict[str, Any]]:
    out = []
    for (model, pretrained), sets in READ.items():
        own = {"model": model, "pretrained": pretrained, "language": "en"}
        for name, value in sets.items():
            metrics = {"acc1": value, "acc5": 1.0, "mean_per_class_recall": value}
            kind = "zeroshot_classification"
            out.append({**own, "dataset": name, "task": kind, "metrics": metrics})
        recalls = {"image_retrieval_recall@5": 0.75, "text_retrieval_recall@5": 0.625}
        out.append({**own, "dataset": "flickr8k", "task": "zeroshot_retrieval", "metrics": recalls})
        out.append(
            {**own, "dataset": "cifar10", "task": "linear_probe", "metrics": {"lp_acc1": 1.0}}
        )
    return out


def benchmark(folder: Path, kind: str) -> Path:
    """The readings as `clip_benchmark eval` leaves them, or as `build` joins them."""
    if kind == "json":
        place = folder / "json"
        place.mkdir()
        for i, row in enumerate(rows()):
            (place / f"{i}.json").write_text(json.dumps(row))
        return place
    flat = [{k: v for k, v in {**r["metrics"], **r}.items() if k != "metrics"} for r in rows()]
    with (folder / "benchmark.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({name for row in flat for name in row}))
        writer.writeheader()
        writer.writerows(flat)
    return folder / "benchmark.csv"


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_models_of_clip_benchmark_become_runs(tmp_path: Path, kind: str) -> None:
    (tmp_path / "map.yaml").write_text(MAP)
    source = benchmark(tmp_path, kind)
    summary = import_runs(source, tmp_path / "map.yaml", tmp_path / "out")
    (record,) = records(tmp_path / "out").values()
    assert (record.backbone, record.target, record.method) == (
        "ViT-B-32 openai", "vtab-pets", "lora",
    )  # fmt: skip
    assert (record.learning_rate, record.seed) == (1e-4, 7)
    assert record.result.test_accuracy == 0.9375
    kept = {name: r.retention_pct for name, r in record.result.transfer.items()}
    assert kept == {"cifar10": 50.0, "vtab-cifar100": 50.0}
    assert record.result.transfer["cifar10"].n_images == 10000
    assert record.result.extra == {
        "flickr8k.image_retrieval_recall@5": 0.75, "flickr8k.text_retrieval_recall@5": 0.625,
    }  # fmt: skip
    assert record.provenance["imported"]["model"] == "ViT-B-32 ckpt/a.pt"
    assert [text.partition(":")[0] for text in summary.warnings] == [
        "test_accuracy is zero-shot, by class texts",
        "models that the map does not name were left out",
        "readings left out",
    ]
    assert "3 linear_probe" in summary.warnings[2]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("baseline: ViT-B-32 openai", "baseline: ViT-B-32 open", "readings of a baseline, got no"),
        ("target: vtab/pets", "target: vtab/pet", "Did you mean 'vtab-pets'?"),
        (", seed: 7", "", "got no seed"),
        (", seed: 7", ", seed: 7, rank: 4", "got ['rank']"),
        (", seed: 7", ", seed: -7", "expected a whole number from 0, got '-7' in ViT-B-32 ckpt"),
        ("    ViT-B-32 ckpt/a.pt: {target: vtab/pets, method: lora, lr: 1e-4, seed: 7}\n", "",
         "got no runs: untouched models are none"),
    ],
)  # fmt: skip
def test_faults_of_its_map(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in MAP
    (tmp_path / "map.yaml").write_text(MAP.replace(old, new))
    with pytest.raises(RecordError) as caught:
        import_runs(benchmark(tmp_path, "csv"), tmp_path / "map.yaml", tmp_path / "out")
    assert said in str(caught.value)


def test_two_readings_of_a_set_are_refused(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(MAP)
    path = benchmark(tmp_path, "csv")
    header, first, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([header, first, first, *others]))
    with pytest.raises(RecordError, match="expected one reading a set, got vtab-pets"):
        import_runs(path, tmp_path / "map.yaml", tmp_path / "out")
