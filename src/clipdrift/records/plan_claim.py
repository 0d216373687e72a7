"""The plan of a study folder belongs to the commands that measure it, until the last of them ends.

Several commands on one study share its runs. A command with another study finds the folder's plan
in use and is refused; where nobody is at work, it replaces the plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from uuid import uuid4

from clipdrift.errors import Fault, StudyFolderError
from clipdrift.records.claims import claim, in_hand
from clipdrift.records.folder import StudyFolder

TURN, COMMAND = "plan", "command-"
"""Names among the claims: of whoever compares plans right now, and of each command at work."""

TURN_SECONDS = 0.1


@contextmanager
def plan_in_use(
    folder: StudyFolder, is_there: Callable[[], bool], write: Callable[[], None]
) -> Iterator[None]:
    """Have a plan in the folder while open, written if it is not there.

    Raises:
        StudyFolderError: if runs of another plan are being measured there.
    """

    def ensure() -> None:
        if is_there():
            return
        at_work = [name for name in in_hand(folder.claims_path) if name != TURN]
        if at_work:
            raise _in_use(folder, at_work)
        write()

    with _held(folder, ensure):
        yield


@contextmanager
def same_plan(folder: StudyFolder, run_ids: Mapping[str, str]) -> Iterator[None]:
    """Keep others from replacing the plan while open, if it is still this one.

    Raises:
        StudyFolderError: if it was replaced or is gone.
    """

    def ensure() -> None:
        folder.require_there()
        if folder.planned() != run_ids:
            raise StudyFolderError(
                Fault(
                    str(folder.path),
                    "the plan of this study",
                    "that of another one, which was started on the folder meanwhile",
                    "Run this study with an --out of its own; its finished runs are safe",
                )
            )

    with _held(folder, ensure):
        yield


@contextmanager
def _held(folder: StudyFolder, ensure: Callable[[], None]) -> Iterator[None]:
    """Look at the plan alone, then be at work."""
    own = claim(folder.claim_path(f"{COMMAND}{uuid4().hex}"))
    while True:
        with claim(folder.claim_path(TURN)) as mine:
            if mine:
                ensure()
                own.__enter__()
                break
        time.sleep(TURN_SECONDS)
    try:
        yield
    finally:
        own.__exit__(None, None, None)


def _in_use(folder: StudyFolder, at_work: list[str]) -> StudyFolderError:
    runs = [name for name in at_work if not name.startswith(COMMAND)]
    named = f" ({', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''})" if runs else ""
    return StudyFolderError(
        Fault(
            str(folder.path),
            "a folder in which no other study is being measured",
            f"one with another study under way{named}",
            "Wait for its command to end, or choose another --out",
        )
    )
