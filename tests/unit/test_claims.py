"""Two processes never measure one run at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clipdrift.records import claims
from clipdrift.records.claims import claim

HOLDER = """
import pathlib, sys
from clipdrift.records.claims import claim
with claim(pathlib.Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_a_claim_excludes_other_processes_until_its_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / ".locks" / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "True"
    with claim(path) as mine:
        assert not mine
    with claim(tmp_path / ".locks" / "other") as mine:
        assert mine
    holder.kill()
    holder.wait()
    with claim(path) as mine:
        assert mine


def test_a_claim_ends_with_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with claim(tmp_path / "run") as mine:
            assert mine


def on_another_host(path: Path, *, renew: float = 10.0) -> subprocess.Popen[str]:
    """A holder under another host name: locks are per host, so that only the lease is between."""
    code = HOLDER.replace("import pathlib, sys", f"import pathlib, sys\n{RENEW.format(renew)}")
    command = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"]
    holder = subprocess.Popen(
        [*command, sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    if not holder.stdout.readline():
        pytest.skip("another host name needs the right to unshare")
    return holder


RENEW = "from clipdrift.records import claims; claims.RENEW_SECONDS = {}"


def age(path: Path, seconds: float) -> None:
    """As if the holder had renewed its lease for the last time so long ago."""
    (lease,) = path.parent.glob(f"{path.name}.lease-*")
    then = lease.stat().st_mtime - seconds
    os.utime(lease, (then, then))


def test_a_claim_excludes_another_host_while_it_lives(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = on_another_host(path, renew=0.1)
    with claim(path) as mine:
        assert not mine
    age(path, 1000)
    time.sleep(0.5)  # it renews its lease
    with claim(path) as mine:
        assert not mine
    holder.communicate("")  # it gives the claim back
    with claim(path) as mine:
        assert mine


def test_the_claim_of_a_dead_host_expires(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = on_another_host(path)
    holder.kill()
    holder.wait()
    with claim(path) as mine:
        assert not mine  # it may be alive
    age(path, claims.LEASE_SECONDS + 1)
    with claim(path) as mine:
        assert mine
    assert len(list(tmp_path.glob("run.lease-*"))) == 1


def test_of_many_that_see_a_lease_expire_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    holder = on_another_host(path)
    holder.kill()
    holder.wait()
    age(path, claims.LEASE_SECONDS + 1)
    # Sixteen hosts of different names, each with the same view of the old lease.
    names = iter(f"host-{i}" for i in range(10**6))
    monkeypatch.setattr(claims, "_machine", lambda: next(names))
    now = time.time()
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda _: claims._take(path, now=now), range(16)))
    assert sum(lease is not None for lease in taken) == 1
