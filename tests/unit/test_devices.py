"""How many processes and threads a machine, its container and its user give."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clipdrift.executors.local import LocalExecutor
from clipdrift.machine import devices
from clipdrift.machine.devices import (
    asked_threads,
    available_cores,
    can_compile,
    cpu_shares,
    crowded,
    for_float64,
    generator_state,
    has_fused_adamw,
    limit_threads,
    set_generator_state,
    supports_bfloat16,
)
from clipdrift.machine.memory import forget_peak, free_memory_bytes, give_back, peak_memory_bytes
from clipdrift.probes.weights import weight_drift_rel


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of eight cores on which nobody asked for a number of threads."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(devices, "_quota", lambda *_: None)


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("asked", "given", "expected"),
    [
        ("", (None, None), (8, 1)),
        ("", (2, None), (2, 4)),
        ("", (3, None), (3, 2)),
        ("", (None, 4), (2, 4)),
        ("", (16, None), (16, 1)),
        ("1", (2, None), (2, 1)),
        ("2", (None, None), (4, 2)),
        ("3,1", (None, None), (2, 3)),
        ("64", (None, None), (1, 64)),
        ("1", (2, 4), (2, 4)),  # an option says more than the environment
        ("none", (2, None), (2, 4)),
        ("0", (2, None), (2, 4)),
    ],
)
def test_processes_and_threads_share_the_cores(
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    given: tuple[int | None, int | None],
    expected: tuple[int, int],
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert cpu_shares(*given) == expected
    with LocalExecutor(given[0], "cpu", cpus=given[1]).kept(None) as kept:  # type: ignore[arg-type]
        assert (kept.workers.n_workers, kept.workers.threads) == expected  # type: ignore[attr-defined]


QUOTAS = {
    "a container that sees itself as the root": ("0::/\n", {"cpu.max": "250000 100000"}, 2),
    "half a core": ("0::/\n", {"cpu.max": "50000 100000"}, 1),
    "no limit": ("0::/\n", {"cpu.max": "max 100000"}, None),
    "a limit further out": ("0::/a/b\n", {"a/b/cpu.max": "max 1", "a/cpu.max": "300 100"}, 3),
    "the smaller of two": ("0::/a/b\n", {"a/b/cpu.max": "500 100", "a/cpu.max": "200 100"}, 2),
    "a group that is not mounted": ("0::/far/away\n", {"cpu.max": "400 100"}, 4),
    "version 1": (
        "5:cpuset:/x\n4:cpu,cpuacct:/x\n0::/\n",
        {"cpu,cpuacct/x/cpu.cfs_quota_us": "600\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100\n"},
        6,
    ),
    "version 1 without a limit": (
        "1:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "what nobody can read": ("0::/\n", {"cpu.max": "a lot"}, None),
}


@pytest.mark.parametrize(("member", "files", "cores"), QUOTAS.values(), ids=QUOTAS)
def test_a_container_gives_what_its_control_groups_allow(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    member: str,
    files: dict[str, str],
    cores: int | None,
) -> None:
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    (tmp_path / "member").write_text(member)
    found = devices._quota(tmp_path / "groups", tmp_path / "member")
    assert found == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    assert devices._quota(tmp_path / "nowhere", tmp_path / "none") is None
    monkeypatch.setattr(devices, "_quota", lambda *_: found)
    assert available_cores() == min(5, cores or 5)


@pytest.mark.usefixtures("eight")
def test_torch_here_keeps_to_the_cores_unless_it_was_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr(devices, "_quota", lambda *_: 3)
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        limit_threads()
        assert (torch.get_num_threads(), asked_threads()) == (4, 4)
        monkeypatch.delenv("OMP_NUM_THREADS")
        limit_threads()
        assert torch.get_num_threads() == 3
        monkeypatch.setattr(devices, "_quota", lambda *_: None)
        limit_threads()
        assert torch.get_num_threads() == 3  # never more than torch chose
    finally:
        torch.set_num_threads(before)


def test_a_machine_with_more_to_do_than_cores_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (4.0, 9.0, 9.0))
    assert crowded() is None
    monkeypatch.setattr(os, "getloadavg", lambda: (9.26, 0.0, 0.0))
    assert crowded() == "this machine is busy (load 9.3 on 4 cores): all takes longer than alone"


class OfApple:
    """Stands in for a tensor on a device without float64, which torch refuses there."""

    device = torch.device("mps")

    def __init__(self, values: torch.Tensor) -> None:
        self.values, self.shape = values, values.shape

    def double(self) -> torch.Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self) -> torch.Tensor:
        return self.values

    def detach(self) -> OfApple:
        return self


def test_what_has_no_float64_is_summed_on_the_cpu() -> None:
    before, after = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
    there: dict[str, Any] = {"w": OfApple(before)}
    with pytest.raises(TypeError):
        there["w"].double()
    assert for_float64(before) is before
    assert weight_drift_rel({"w": after}, there) == weight_drift_rel({"w": after}, {"w": before})


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_devices_are_asked_only_for_what_is_known_of_them(kind: str) -> None:
    device = torch.device(kind)
    assert not has_fused_adamw(device)
    assert not can_compile(device)
    assert has_fused_adamw(torch.device("cpu"))
    assert not supports_bfloat16("mps")


def test_memory_is_that_of_the_system_where_a_device_shares_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch.mps has neither of the questions, and its memory is the machine's."""
    shared = SimpleNamespace(empty_cache=lambda: None)
    monkeypatch.setattr(torch, "get_device_module", lambda kind: shared)
    meminfo = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
    free = free_memory_bytes(torch.device("mps"))
    assert free == pytest.approx(1024 * int(meminfo), rel=0.2)
    peak = peak_memory_bytes("mps")
    assert peak == peak_memory_bytes("cpu") > 1e8
    forget_peak("mps")
    give_back(torch.device("mps"))


def test_dropout_goes_on_where_a_device_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.mps takes no device in the place where torch.cuda and torch.xpu do."""
    set_to: list[tuple[Any, ...]] = []
    state = torch.tensor([1], dtype=torch.uint8)
    stand_in = SimpleNamespace(
        get_rng_state=lambda *place: state, set_rng_state=lambda *given: set_to.append(given)
    )
    monkeypatch.setattr(torch, "get_device_module", lambda kind: stand_in)
    for kind in ("mps", "cuda"):
        device = torch.device(kind)
        kept = generator_state(device)
        assert kept is state
        set_generator_state(device, kept)
    assert set_to == [(state,), (state, torch.device("cuda"))]
    assert generator_state(torch.device("cpu")) is None
