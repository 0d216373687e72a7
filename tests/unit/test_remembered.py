"""What `plan` remembers of its trials, and when it makes them anew."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_study import tiny

from clipdrift.materials import Materials
from clipdrift.spec import StudySpec
from clipdrift.study import estimate as room
from clipdrift.study import remembered
from clipdrift.study.remembered import Sizes, Speed, Trials

SPEED = Speed(train=1e-3, once=0.5e-3, score=2e-3, probe=4e-3, saved_bytes=1000)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Materials]:
    """Materials of every trial made, each of which comes to SPEED; the machine is idle."""
    made: list[Materials] = []

    def tried(runs: Any, materials: Materials, device: str, threads: int) -> Trials:
        made.append(materials)
        target = materials.targets["photos"]
        sizes = {part: len(images) for part, images in target.sets.items()} | {"corrupted": 0}
        return Trials({"lora": SPEED}, Sizes({"photos": sizes}, 60, 20), {"photos": []})

    monkeypatch.setattr(room, "tried", tried)
    monkeypatch.setattr(room, "crowded", lambda: None)
    return made


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 24 pictures."""
    draw = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(24):
            picture = Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            picture.save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def cost(tmp_path: Path, photos: Path) -> Callable[..., room.Estimate]:
    """The cost of the tiny study on the pictures, with fields changed."""

    def of(**changes: Any) -> room.Estimate:
        spec: StudySpec = tiny(
            **{"targets": [{"name": "photos", "folder": str(photos)}], **changes}
        )
        return room.estimate(spec, device="cpu", cache_dir=tmp_path / "cache")

    return of


def test_a_grid_that_grows_needs_no_new_trial(
    cost: Callable[..., room.Estimate], trials: list[Materials]
) -> None:
    first = cost()
    more = cost(seeds=[7, 8], learning_rates=[1e-3, 1e-2, 1e-1])
    assert len(trials) == 1
    assert first.seconds is not None
    assert more.seconds == pytest.approx(6 * first.seconds)
    own = {part: len(images) for part, images in trials[0].targets["photos"].sets.items()}
    scored = 3 * (own["val"] + 20) + own["test"] + 60
    by_hand = own["train"] * (3 * 1e-3 + 0.5e-3) + 4 * own["probe"] * 4e-3 + scored * 2e-3
    assert first.seconds * room.cpu_shares()[0] == pytest.approx(by_hand)


def test_what_trials_depend_on_asks_for_new_ones(
    cost: Callable[..., room.Estimate], trials: list[Materials], photos: Path
) -> None:
    cost()
    cost(schedule={"epochs": 1, "batch_size": 20})
    assert len(trials) == 1
    cost(schedule={"epochs": 3, "batch_size": 10})
    assert len(trials) == 2
    cost(methods=[{"name": "lora", "kind": "lora", "rank": 2}])
    assert len(trials) == 3
    os.utime(photos / "cat" / "0.png", ns=(1, 1))
    cost()
    assert len(trials) == 4


def test_old_or_damaged_trials_and_those_of_a_busy_machine_are_not_used(
    cost: Callable[..., room.Estimate],
    trials: list[Materials],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "crowded", lambda: "busy")
    cost()
    monkeypatch.setattr(room, "crowded", lambda: None)
    cost()
    assert len(trials) == 2
    (kept,) = (tmp_path / "cache" / "trials").iterdir()
    kept.write_text(kept.read_text()[:-9])
    cost()
    assert len(trials) == 3
    before = time.time() - remembered.KEPT_SECONDS - 60
    os.utime(kept, (before, before))
    cost()
    assert len(trials) == 4


def test_a_fault_of_the_data_is_told_although_trials_are_remembered(
    cost: Callable[..., room.Estimate], trials: list[Materials], photos: Path
) -> None:
    cost()
    for picture in (photos / "dog").iterdir():
        picture.unlink()
    found = cost()
    assert found.seconds is None
    assert found.reason is not None
    assert "dog" in found.reason
