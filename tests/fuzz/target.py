"""What is fuzzed: any bytes, put where a user's file would lie, and read as that file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz.strategies import damaged
from hypothesis.strategies import SearchStrategy

Feed = Callable[[bytes, Path], None]


@dataclass(frozen=True)
class Target:
    """One kind of file from outside.

    feed: reads the bytes as that file in an empty folder; may raise ClipdriftError and nothing
    else. seeds: good files, from which both engines start. shaped: inputs that keep the outer form,
    for hypothesis. examples: of the short run in the normal suite.
    share: of the inputs asked for in a long run; slow readers get fewer.
    """

    name: str
    feed: Feed
    seeds: Callable[[], list[bytes]]
    shaped: Callable[[], SearchStrategy[bytes]] | None = None
    examples: int = 40
    share: float = 1.0
    coverage_guided: bool = True

    def inputs(self) -> SearchStrategy[bytes]:
        """Seeds with damaged bytes, and inputs of the right outer form where there are any."""
        anyhow = damaged(self.seeds())
        return self.shaped() | anyhow if self.shaped else anyhow


__all__ = ["Feed", "Target"]
