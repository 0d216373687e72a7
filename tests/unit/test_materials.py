"""All that is wrong with the data of a study is told at once, before any image is prepared."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from clipdrift.errors import ClipdriftError
from clipdrift.materials import load_materials
from tests.small_study import study


def fill(root: Path, **counts: int) -> str:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (30, 30), (i, i, i)).save(root / name / f"{i:03}.png")
    return str(root)


@pytest.mark.parametrize("backbone", ["mini-clip", "gone"])
def test_faults_of_every_dataset_come_before_any_is_prepared(tmp_path: Path, backbone: str) -> None:
    good = fill(tmp_path / "good", cat=9, dog=9)
    at = backbone if backbone == "mini-clip" else str(tmp_path / backbone)
    spec = study(
        backbone={"id": at},
        targets=[
            {"name": "few", "folder": good, "splits": {"train_per_class": 90}},
            {"name": "gone", "folder": str(tmp_path / "gone")},
        ],
        transfers=[
            {"name": "fine", "folder": good},
            {"name": "much", "folder": good, "n_images": 400},
            {"name": "mess", "folder": fill(tmp_path / "mess", cat=2, dog=0)},
            {"name": "names", "folder": good, "class_names": ["cat", "bird"]},
        ],
    )
    told: list[str] = []
    with pytest.raises(ClipdriftError) as raised:
        load_materials(spec, cache_dir=tmp_path / "cache", report=told.append)
    where = {fault.where for fault in raised.value.faults}
    assert where == {
        "target few, training part, cat",
        "target few, training part, dog",
        "gone.folder",
        "much.n_images",
        "mess.folder",
        "names.class_names",
        *([] if backbone == "mini-clip" else [f"backbone {at}"]),
    }
    assert not (tmp_path / "cache").exists()
    assert told == []


def test_unreadable_images_of_all_datasets_are_told_together(tmp_path: Path) -> None:
    for name in ("one", "two"):
        fill(tmp_path / name, cat=9, dog=9)
        (tmp_path / name / "cat" / "000.png").write_bytes(b"x")
    spec = study(transfers=[{"name": n, "folder": str(tmp_path / n)} for n in ("one", "two")])
    with pytest.raises(ClipdriftError) as raised:
        load_materials(spec, cache_dir=tmp_path / "cache")
    assert [fault.where for fault in raised.value.faults] == ["one (test)", "two (test)"]
