"""What `clipdrift check` found of a study, as lines to be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LISTED = 20
"""Classes shown of a dataset; `--json` has all."""


def lines_of(found: Mapping[str, Any]) -> Iterator[str]:
    """In sentences, with what a reader must look at first."""
    yield f"{found['study']}: backbone {found['backbone']}, {found['image_size']} px"
    for reason, names in _by_reason(found["not_read"]).items():
        yield f"not read ({reason}): {', '.join(names)}"
    for kind in ("targets", "transfers"):
        for name, about in found[kind].items():
            counts = ", ".join(f"{n:,} {what}" for what, n in about.items() if isinstance(n, int))
            bad = len(about["unreadable"])
            yield f"{kind[:-1]} {name}: {counts}" + (f"; {bad} unreadable left out" if bad else "")
            for one in about["labels"][:LISTED]:
                yield f"  {one['label']:3}  {one['name']}: {', '.join(one['files'])}"
            if more := about["labels"][LISTED:]:
                yield f"  and {len(more):,} more classes (--json lists them)"
    yield from (f"warning: {text}" for text in found["warnings"])
    yield from _warnings(found["targets"])
    for about in (*found["targets"].values(), *found["transfers"].values()):
        yield from (f"warning: {text}" for text in about["prompts_not_read"])


def _warnings(targets: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    shared = {name: about["shared_images"] for name, about in targets.items()}
    for name, texts in shared.items():
        yield from (f"warning: target {name}: {text}" for text in texts)
    if any(shared.values()):
        yield (
            "Accuracy on copies is no measure of what was learned. `splits: {group_by: "
            "duplicates}` keeps copies within a target together; copies in transfer sets have to "
            "be removed."
        )
    told = [text for about in targets.values() for text in about["in_two_classes"]]
    yield from (f"warning: {text}" for text in dict.fromkeys(told))


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Why -> what, in the order of the names."""
    grouped: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        grouped.setdefault(reason, []).append(name)
    return grouped
