"""The tables of results pages say what the analysis says."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from report_study import study_folder

from clipdrift.records import RunRecord

TOOL = Path(__file__).parents[2] / "tools" / "results_tables.py"


def test_cells_ranks_and_tests_are_those_of_the_study(
    make_records: Callable[..., list[RunRecord]], tmp_path: Path
) -> None:
    records = make_records(methods=("full_ft", "lora", "third"), targets=("digits",))
    folder = study_folder(tmp_path, records)
    call = [sys.executable, str(TOOL), str(folder.path), "full_ft"]
    printed = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    lines = [line.split(" | ") for line in printed.splitlines() if line.startswith("| lora |")]
    cell, ranked = lines[0], lines[1]
    lowest = min(record.learning_rate for record in records)
    own = [r for r in records if (r.method, r.learning_rate) == ("lora", lowest)]
    values = [100 * (r.result.test_accuracy or 0) for r in own]
    mean, sd = statistics.mean(values), statistics.stdev(values)
    assert cell[1].startswith(f"{mean:.1f} ± {sd:.1f}")
    analysis = json.loads(folder.analysis_path.read_text())
    kept = min({row["metric"] for row in analysis["ranking"]} - {"test_accuracy"})  # comes first
    row = next(
        r
        for r in analysis["ranking"]
        if (r["view"], r["metric"], r["method"]) == ("own_best_rate", kept, "lora")
    )
    assert ranked[4].startswith(f"{row['value']:.1f}, {row['rank']} (")
    test = next(
        r
        for r in analysis["paired"]
        if (r["metric"], r["scope"], r["method_a"], r["method_b"])
        == (kept, "pooled", "full_ft", "lora")
    )
    assert ranked[7].startswith(f"{-test['mean_diff']:+.1f} (")
    standings = [row["standing"] for row in analysis["choice"]]
    assert "runner_up" in standings
    assert printed.count(" | runner-up | ") == standings.count("runner_up")
