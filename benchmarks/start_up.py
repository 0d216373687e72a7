"""How long commands take that are asked often: help, where a study stands, what it will cost.

    python benchmarks/start_up.py               # about a minute on two cores

The median of new processes, each with a warm file cache. The study is the quickstart, its images
prepared before; `status` reads its plan, with no run made.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shapes import machine

TIMES = 2 if "--quick" in sys.argv else 5
QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart.yaml"


def seconds(*words: str) -> float:
    """Wall time of one command, from its start to its end."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "clipdrift", *words]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def planned(folder: Path) -> Path:
    """A study folder with the quickstart's plan and no run."""
    from clipdrift.data.cache import default_cache_dir
    from clipdrift.materials import load_materials
    from clipdrift.records import StudyFolder
    from clipdrift.spec import load_spec
    from clipdrift.study.plan import plan_runs

    spec = load_spec(QUICKSTART).model_copy(update={"precision": "float32"})
    runs = plan_runs(spec, load_materials(spec, cache_dir=default_cache_dir()))
    study = StudyFolder(folder)
    study.create()
    study.write_plan(spec, {run.run_id: run.identity for run in runs})
    return folder


def main() -> None:
    """Print the table."""
    print(machine())
    print("| command | seconds |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        study = str(planned(Path(folder) / "study"))
        for words in (["--help"], ["status", study], ["plan", str(QUICKSTART)]):
            spent = [seconds(*words) for _ in range(TIMES + 1)][1:]
            print(f"| {' '.join(words[:1])} | {statistics.median(spent):.2f} |")


if __name__ == "__main__":
    main()
