"""The command that shows and clears the cache of prepared images and converted models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from clipdrift.cli.options import Cache, Json
from clipdrift.cli.terminal import Sheet, Terminal, say, say_json

if TYPE_CHECKING:
    from clipdrift.data.cached import Cached

Clear = Annotated[bool, typer.Option("--clear", help="remove everything in it")]
OlderThan = Annotated[
    float | None, typer.Option(min=0, metavar="DAYS", help="remove what was not used for so long")
]


def cache(
    cache: Cache = None, clear: Clear = False, older_than: OlderThan = None, json_: Json = False
) -> None:
    """Show prepared images and converted models, or remove them: they are made anew when needed."""
    from clipdrift.data import cached
    from clipdrift.data.cache import default_cache_dir

    folder, removing = cache or default_cache_dir(), clear or older_than is not None
    days = older_than or 0.0
    found = list(cached.clear(folder, older_than=days)) if removing else cached.cached(folder)
    total = sum(entry.size_bytes for entry in found)
    if json_:
        rows = [{**vars(entry), "path": str(entry.path)} for entry in found]
        say_json({"folder": str(folder), "bytes": total, "entries": rows})
        return
    if found:
        Terminal().print(_table(found))
    where = f"removed from {folder}" if removing else f"in {folder}"
    say(f"{len(found):,} parts of datasets and models, {total / 1e6:,.1f} MB {where}")


def _table(found: Sequence[Cached]) -> Sheet:
    table = Sheet("Prepared images and converted models")
    for name in ("dataset", "images", "MB", "last use"):
        table.column(name, right=name != "dataset")
    for entry in found:
        table.row(
            entry.dataset or "unfinished, or of an older version",
            "" if entry.images is None else f"{entry.images:,}",
            f"{entry.size_bytes / 1e6:,.1f}",
            "today" if entry.days < 1 else f"{entry.days:,.0f} days ago",
        )
    return table
