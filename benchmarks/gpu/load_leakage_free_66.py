"""The whole of leakage-free-66 on a GPU, on random weights and images of noise: how many minutes?

    python benchmarks/gpu/load_leakage_free_66.py            # 66 runs, ViT-B/32 at 224 px
    python benchmarks/gpu/load_leakage_free_66.py --smoke    # all 66 in miniature, on a CPU

Every epoch, reading and file of the preset, at the numbers of images of its datasets; accuracies
alone mean nothing. It holds about 11 GB of images in memory and writes about 9 GB of weights into a
temporary folder. Not yet measured on a GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from preset_cost import (
    SIDE,
    STUDIES,
    in_their_place,
    noise_part,
    on_backbone,
    parts_of,
    worker_on,
    write_backbone,
)

from clipdrift.data.prepared import PreparedPart
from clipdrift.errors import ExecutorError, Fault
from clipdrift.records import RunRecord, StudyFolder, read_record
from clipdrift.spec import StudySpec, load_spec
from clipdrift.spec.datasets import DatasetSpec, TargetSpec
from clipdrift.study.worker import Worker, strict_float32

PRESET = "leakage-free-66"
SMALL_SIDE = 32
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4, "image_size": SMALL_SIDE, "patch_size": 8}


def noise(dataset: DatasetSpec, *, side: int, **_: Any) -> dict[str, PreparedPart]:
    """The published parts that a study reads, every image its own."""
    rng = np.random.default_rng(0)
    return {
        part: noise_part(dataset, part, rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8))
        for part, n in parts_of(dataset).items()
        if part == "test" or isinstance(dataset, TargetSpec)  # transfers are only scored
    }


def in_miniature(spec: StudySpec) -> StudySpec:
    """The same runs, readings and files, one training step each, on a handful of images."""
    body = spec.model_dump()
    few = {"train_per_class": 4, "val_per_class": 1, "test_per_class": 1}
    for target in body["targets"]:
        target |= {"splits": few, "probe": {"per_class": 1, "source": "train"}}
        for part in target["corrupted"]:
            part["n_images"] = 10
    for transfer in body["transfers"]:
        transfer["n_images"] = 100
    body["schedule"] |= {"epochs": 1, "max_steps": 1}
    body["evaluation"] |= {"epoch_transfer_images": 100}
    return StudySpec.model_validate(body)


def require_gpu() -> str:
    """ "cuda", or a refusal."""
    if not torch.cuda.is_available():
        raise ExecutorError(
            Fault(
                "device",
                "a GPU that torch can use",
                "none on this machine",
                "Run this where there is one, or try it out on a CPU with --smoke",
            )
        )
    return "cuda"


def load(worker: Worker, folder: StudyFolder) -> list[RunRecord]:
    """Every run of the study, one after the other."""
    records = []
    for number, run_id in enumerate(worker.runs, 1):
        worker.measure(run_id, lambda event: None)
        records.append(read_record(folder.record_path(run_id)))
        seconds = records[-1].timing["wall_seconds"]
        print(f"{number:2}/{len(worker.runs)} {run_id}: {seconds:.1f} s", flush=True)
    return records


def report(records: list[RunRecord], seconds: float, device: str) -> None:
    by_method: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        by_method[record.method].append(record)
    print(
        "| method | runs | seconds a run | training images/s | peak memory |\n|---|---|---|---|---|"
    )
    for method, own in by_method.items():
        speeds = [record.timing["train_images_per_second"] or 0 for record in own]
        peak = max(record.timing["peak_memory_bytes"] or 0 for record in own)
        mean = sum(record.timing["wall_seconds"] or 0 for record in own) / len(own)
        print(
            f"| {method} | {len(own)} | {mean:.1f} | {sorted(speeds)[len(speeds) // 2]:,.0f} "
            f"| {peak / 1e9:.1f} GB |"
        )
    finished = sum(record.status == "finished" for record in records)
    name = torch.cuda.get_device_name() if device == "cuda" else "a CPU, in miniature"
    print(
        f"{finished} of {len(records)} runs finished in {seconds / 60:.1f} minutes, baselines and "
        f"preparation included, on {name}; torch {torch.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="in miniature, on a CPU")
    smoke = parser.parse_args().smoke
    try:
        device = "cpu" if smoke else require_gpu()
    except ExecutorError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    strict_float32()
    spec = load_spec(STUDIES / f"{PRESET}.yaml")
    with (
        tempfile.TemporaryDirectory() as name,
        in_their_place(partial(noise, side=SMALL_SIDE if smoke else SIDE)),
    ):
        sizes, width = (SMALL, 64) if smoke else ({}, 512)
        spec = on_backbone(spec, write_backbone(Path(name) / "clip", sizes, width))
        folder = StudyFolder(Path(name) / "study")
        started = time.perf_counter()
        worker = worker_on(in_miniature(spec) if smoke else spec, folder, device)
        records = load(worker, folder)
        report(records, time.perf_counter() - started, device)


if __name__ == "__main__":
    main()
