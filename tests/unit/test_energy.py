"""Energy by counters that a folder stands in for, and by an estimate that says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipdrift.machine.energy import Meter


def package(folder: Path, name: str, microjoules: int, most: int = 10**9) -> None:
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "energy_uj").write_text(f"{microjoules}\n")
    (place / "max_energy_range_uj").write_text(f"{most}\n")


def test_counters_are_added_and_one_begins_again(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", 100_000_000)
    package(tmp_path, "intel-rapl:1", 999_000_000)
    package(tmp_path, "intel-rapl:0:0", 5)  # a part of the first: not counted twice
    meter = Meter(tmp_path)
    package(tmp_path, "intel-rapl:0", 460_000_000)  # 360 J
    package(tmp_path, "intel-rapl:1", 35_000_000)  # wrapped: 1 J to the end, 35 J after it
    package(tmp_path, "intel-rapl:0:0", 10**8)
    found = meter.so_far(1.0, on_gpu=False)
    assert found.kwh == pytest.approx((360 + 36) / 3.6e6)
    assert found.how == "counted, whole machine: processor"


def test_without_counters_cores_are_estimated_and_gpus_are_not(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("none")
    meter = Meter(tmp_path)
    found = meter.so_far(7200.0, on_gpu=False)
    assert found.kwh == pytest.approx(0.024)
    assert found.words.startswith("0.024 kWh (estimate: 2.00 core hours at 12 W")
    assert meter.so_far(7200.0, on_gpu=True).kwh is None
