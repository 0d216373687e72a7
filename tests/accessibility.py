"""What axe-core finds on a page: the rules of WCAG that a program can check."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe

# Looking at thousands of rows and drawn points takes a minute: rows of one table are alike, and of
# what is drawn axe judges no contrast.
ALIKE = {"exclude": [["tbody tr:nth-child(n+8)"], [".plot svg"]]}


def serious_faults(page: Any) -> list[str]:
    """Rules broken with serious or critical impact, each with the elements that break it."""
    return [
        f"{rule['id']}: {[node['html'][:160] for node in rule['nodes'][:5]]}"
        for rule in Axe().run(page, context=ALIKE).response["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
