"""How many processes and threads a machine, its container and its user give."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipdrift.executors.local import LocalExecutor
from clipdrift.machine import devices
from clipdrift.machine.devices import (
    asked_threads,
    available_cores,
    cpu_shares,
    crowded,
    limit_threads,
)


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
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "clipdrift.executors.local._LocalWorkers",
        lambda _, workers, __, threads, ___: seen.append((workers, threads)) or _Nothing(),
    )
    LocalExecutor(given[0], "cpu", cpus=given[1]).run(None, [])  # type: ignore[arg-type]
    assert seen == [expected]


class _Nothing:
    def run(self, _: object) -> None:
        return None


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
