"""Ask pip-audit about every pinned package, and say of how many it could be asked.

    python tools/audit_packages.py

pip-audit passes over packages that its service does not know and ends with exit code 0; a mirror
without the advisories of PyPI knows none. Here the exit code is 1 for any finding, and 2 if a
package could not be asked about, whatever the reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
SERVICES = ("pypi", "osv")


def main() -> int:
    pins = [line for line in CONSTRAINTS.read_text().splitlines() if line and line[0] != "#"]
    for service in SERVICES:
        found, words = ask(service, pins)
        asked = {row["name"]: row["vulns"] for row in found if "vulns" in row}
        if len(asked) == len(pins):
            return tell(asked)
        print(f"{service}: {len(asked)} of {len(pins)} packages could be asked about. {words}")
    print("NOT AUDITED: run it where the advisories of PyPI or OSV can be reached.")
    return 2


def ask(service: str, pins: list[str]) -> tuple[list[dict[str, object]], str]:
    """What pip-audit found, a row for each package, and the last thing it said."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins))
        file.flush()
        asking = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format=json"]
        asking += ["--progress-spinner=off", "--vulnerability-service", service]
        done = subprocess.run(
            [*asking, "--requirement", file.name], capture_output=True, text=True, check=False
        )
    try:
        rows: list[dict[str, object]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return [], " ".join(done.stderr.split())[-300:]
    reasons = sorted({str(row["skip_reason"]) for row in rows if "skip_reason" in row})
    return rows, reasons[0] if reasons else ""


def tell(asked: dict[object, object]) -> int:
    bad = {name: vulns for name, vulns in asked.items() if vulns}
    for name, vulns in bad.items():
        print(f"{name}: {json.dumps(vulns)}")
    print(f"{len(asked)} packages asked about, {len(bad)} with findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
