"""Files beside a run's record: classes, probe readings image by image, and the hashes of all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clipdrift.data.images import Images
from clipdrift.errors import StudyFolderError
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.paths import file_hash, links_out
from clipdrift.probes.capture import ProbeReading
from clipdrift.probes.drift import per_image_table
from clipdrift.probes.weight_updates import WeightUpdate
from clipdrift.probes.zero_shot import cosines
from clipdrift.reading.gauge import Gauge
from clipdrift.reading.in_full import InFull
from clipdrift.reading.pictures import save_pictures
from clipdrift.records import atomic_write, lost_images
from clipdrift.records.writing import HALF_WRITTEN, ours, writing_to
from clipdrift.run.progress import PROGRESS_FILE, STATE_FILE

PROBE_FILE = "probe_images.parquet"
UPDATES_FILE = "weight_updates.parquet"
NO_CLASS = ""
"""Of an image whose embedding is no number; -1 in readings."""
CLASSES_FILE = "classes.json"
HASHED = {".safetensors", ".parquet", ".json"}
NOT_HASHED = {STATE_FILE, PROGRESS_FILE, "record.json"}


def write_classes(folder: Path, names: Sequence[str], templates: Sequence[str]) -> None:
    """The names of a run's classes, in the order of its classifier's outputs, and their templates.

    Raises:
        StudyFolderError: if the disk is full or the folder cannot be written.
    """
    content = {"classes": [*names], "templates": [*templates]}
    atomic_write(folder / CLASSES_FILE, json.dumps(content, indent=1, ensure_ascii=False))


def write_probe_table(
    folder: Path, reading: ProbeReading, baseline: ProbeReading, images: Images
) -> None:
    """One row per probe image: its place and label, every level now and in the baseline.

    Raises:
        StudyFolderError: if the disk is full or the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = per_image_table(reading, baseline)
    columns = {"image": images.index.tolist(), "label": images.labels.tolist(), **table}
    with writing_to(folder / PROBE_FILE):
        pq.write_table(pa.table(columns), folder / PROBE_FILE)


def write_weight_updates(folder: Path, updates: Sequence[WeightUpdate]) -> None:
    """One row per weight matrix of the blocks, as `WeightUpdate` says; none where there are none.

    Raises:
        StudyFolderError: if the disk is full or the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if updates:
        with writing_to(folder / UPDATES_FILE):
            pq.write_table(
                pa.Table.from_pylist([asdict(one) for one in updates]), folder / UPDATES_FILE
            )


def write_transfer_table(folder: Path, gauge: Gauge, read: Mapping[str, InFull]) -> None:
    """One row per image of the sets that were read in full; none where there are none.

    Its set and label, the class that it is taken for now and before, its margins, and the target
    class whose text lies nearest to its label's. 10,000 images of 100 classes take
    180 kB.

    Raises:
        StudyFolderError: if the disk is full or the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pa.table(_image_by_image(gauge, name, now)) for name, now in read.items()]
    if tables:
        with writing_to(folder / lost_images.TABLE):
            whole = pa.concat_tables(tables)
            pq.write_table(whole, folder / lost_images.TABLE, compression="zstd")


def _image_by_image(gauge: Gauge, name: str, now: InFull) -> dict[str, Any]:
    material, baselines = gauge.transfers[name], gauge.baselines
    before, own = baselines.transfers[name].in_full, baselines.target
    assert before is not None
    assert own is not None
    near = cosines(baselines.transfers[name].text_features, own.text_features).max(dim=1)
    classes, labels = [*material.class_names, NO_CLASS], material.images.labels
    targets = [gauge.target.class_names[k] for k in near.indices.tolist()]
    return {
        "set": [name] * len(labels),
        "image": material.images.index.tolist(),
        "label": [classes[c] for c in labels.tolist()],
        "predicted": [classes[c] for c in now.classes.tolist()],
        "baseline_predicted": [classes[c] for c in before.classes.tolist()],
        "margin": now.margins.numpy(),
        "baseline_margin": before.margins.numpy(),
        "nearest_target": [targets[c] for c in labels.tolist()],
        "similarity": near.values.float().numpy()[labels],
    }


def write_lost_pictures(
    folder: Path, gauge: Gauge, model: AdaptedModel, read: Mapping[str, InFull]
) -> None:
    """A picture of each image that stands for those that were lost, of every set read in full.

    At most four a set, 20 kB each.

    Raises:
        StudyFolderError: if the disk is full or the folder cannot be written.
    """
    for name, now in read.items():
        images, before = gauge.transfers[name].images, gauge.baselines.transfers[name].in_full
        assert before is not None
        fall = (before.margins - now.margins).numpy()
        chosen = lost_images.picked(images.labels, now.classes, before.classes, fall)
        names = [lost_images.file_name(name, at) for at in images.index[chosen].tolist()]
        paths = [folder / lost_images.PICTURES / one for one in names]
        if paths:
            pixels = images.take(np.array(chosen))
            save_pictures(model.encoder, gauge.backbone, pixels, paths)


def require_own_files(folder: Path) -> None:
    """Refuse a run's folder with a link out of it: what is read is another's, or is written over.

    Raises:
        StudyFolderError: naming each link.
    """
    if links := links_out(folder.rglob("*"), folder):
        raise StudyFolderError(links)


def clear_unfinished(folder: Path) -> None:
    """Remove half-written files that a killed process left in a run's folder.

    Raises:
        StudyFolderError: if the folder cannot be written, or has a link out of it.
    """
    require_own_files(folder)
    with writing_to(folder):
        for pattern in (HALF_WRITTEN, ".tmp*"):  # our own names, and those of safetensors
            for path in folder.rglob(pattern):
                if not path.is_dir():
                    path.unlink(missing_ok=True)


def clear_state(folder: Path) -> None:
    """Remove the state of a run whose record is in place: nothing is to go on from."""
    with writing_to(folder):
        for name in (STATE_FILE, PROGRESS_FILE):
            (folder / name).unlink(missing_ok=True)


def file_hashes(folder: Path) -> dict[str, str]:
    """Name within the folder -> SHA-256 (hex) of every file of weights, readings or settings."""
    hashes = {}
    for path in ours(folder, "**/*"):
        if path.suffix in HASHED and path.name not in NOT_HASHED:
            hashes[path.relative_to(folder).as_posix()] = file_hash(path)
    return hashes
