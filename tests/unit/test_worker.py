"""What a worker says of a run whose code ends the process, and of logs that are gone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from clipdrift.executors.process import how_it_ended
from clipdrift.machine.signals import StopRequest
from clipdrift.study.worker import serve


class Leaving:
    """A run calls sys.exit, as code of a plugin may."""

    def measure(self, key: str, say: Any) -> dict[str, Any]:
        if key == "a":
            raise SystemExit(0)
        return {"event": "measured", "status": "finished"}


def test_a_run_that_calls_exit_has_failed_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = io.StringIO()
    serve(Leaving(), io.StringIO("a\nb\n"), answers, StopRequest())  # type: ignore[arg-type]
    closing = [e for e in map(json.loads, answers.getvalue().splitlines()) if e.get("last")]
    assert [(e["key"], e["event"], e.get("reason")) for e in closing] == [
        ("a", "failed", "SystemExit: 0"),
        ("b", "measured", None),
    ]
    assert "Traceback" in capsys.readouterr().err


def test_a_worker_that_died_is_told_without_its_log(tmp_path: Path) -> None:
    assert how_it_ended(3, tmp_path / "logs" / "gone.log") == "worker ended with exit code 3"
