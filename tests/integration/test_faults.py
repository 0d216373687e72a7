"""Signals that a study meets."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_study import tiny

from clipdrift.run_files import STATE_FILE
from clipdrift.spec import StudySpec, dump_spec

ROOT = Path(__file__).parents[2]


def command(spec: StudySpec, out: Path, cache: Path) -> list[str]:
    file = out.parent / "study.yaml"
    file.write_text(dump_spec(spec))
    run = [sys.executable, "-m", "clipdrift.cli", "run", str(file), "--out", str(out)]
    return [*run, "--cache", str(cache), "--workers", "1", "--device", "cpu"]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "ended early"
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_study_with_its_state_saved(
    number: int, code: int, cache_dir: Path, tmp_path: Path
) -> None:
    spec, out = tiny(schedule={"epochs": 100000, "batch_size": 20}), tmp_path / "out"
    process = subprocess.Popen(
        command(spec, out, cache_dir),
        stdout=subprocess.PIPE,
        text=True,
        # Who runs the tests in the background has them ignore what is tested here.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    wait_for(out / "baselines", process)
    time.sleep(3)
    process.send_signal(number)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert told.splitlines()[-1] == (
        "Interrupted; finished runs are safe, and those in hand go on where they stopped. "
        f"Resume: clipdrift run {tmp_path / 'study.yaml'} --out {out}"
    )
    (state,) = out.glob(f"runs/*/{STATE_FILE}")
    assert not list(state.parent.glob("record.json"))
