"""The study folder: where a study's files lie, and what is read from them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipdrift.errors import ClipdriftError, Fault, RecordError, StudyFolderError
from clipdrift.paths import read_file
from clipdrift.records.checked import MAX_BYTES
from clipdrift.records.schema import RunRecord, read_record
from clipdrift.records.writing import HALF_WRITTEN, atomic_write, writing_to
from clipdrift.spec import StudySpec, content_hash, dump_spec, load_spec
from clipdrift.spec.load import is_altered, with_checksum

OUTSIDE = "outside-"
"""How the run ids of trainings begin that no study planned: see `clipdrift.record`."""

HALF_WRITTEN_SECONDS = 3600.0
"""A half-written file of this age is nobody's any more: no file of ours takes so long to write."""


def _is_folder_name(name: str) -> bool:
    """Whether it names a folder in `runs` itself: no path, nothing a file system refuses."""
    plain = name.isprintable() and 0 < len(name.encode()) < 256
    return plain and name != os.pardir and Path(name).name == name


@dataclass(frozen=True)
class StudyFolder:
    """Names of everything in a study folder, and safe access to it."""

    path: Path

    @classmethod
    def at(cls, place: AnyFolder) -> StudyFolder:
        """The folder that a caller names: by its path, or as it is."""
        return place if isinstance(place, StudyFolder) else cls(Path(place))

    @property
    def spec_path(self) -> Path:
        return self.path / "study.yaml"

    @property
    def plan_path(self) -> Path:
        return self.path / "plan.json"

    @property
    def runs_path(self) -> Path:
        return self.path / "runs"

    @property
    def tables_path(self) -> Path:
        return self.path / "tables"

    @property
    def figures_path(self) -> Path:
        return self.path / "figures"

    @property
    def analysis_path(self) -> Path:
        return self.path / "analysis.json"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def race_path(self) -> Path:
        return self.path / "race.json"

    def run_path(self, run_id: str) -> Path:
        """Folder of one run. The id comes from validated names, so it stays inside `runs`."""
        return self.runs_path / run_id

    def record_path(self, run_id: str) -> Path:
        return self.run_path(run_id) / "record.json"

    @property
    def claims_path(self) -> Path:
        """Where all that is held by a process lies (`records.claims`)."""
        return self.path / ".locks"

    def claim_path(self, run_id: str) -> Path:
        """What a worker that measures the run holds."""
        return self.claims_path / run_id

    @contextmanager
    def made(self) -> Iterator[None]:
        """Make the folder; if what is done while open is refused, what was made goes again.

        Raises:
            StudyFolderError: if it is a file or cannot be made.
        """
        new = [path for path in (self.runs_path, *self.runs_path.parents) if not path.exists()]
        self.create()
        try:
            yield
        except ClipdriftError:
            for path in new:
                with suppress(OSError):  # something was written there
                    path.rmdir()
            raise

    def create(self) -> None:
        """Make the folder, refusing a path that is a file.

        Raises:
            StudyFolderError: if it is a file or cannot be made.
        """
        if self.path.exists() and not self.path.is_dir():
            raise StudyFolderError(
                Fault(str(self.path), "a folder for the results", "a file", "Choose another --out")
            )
        with writing_to(self.path):
            self.runs_path.mkdir(parents=True, exist_ok=True)

    def clear_half_written(self) -> None:
        """Remove what killed commands left half-written among the results.

        Not what is new: another command on the folder may be writing it.
        """
        places = (self.tables_path, self.figures_path, self.path / "baselines", self.path / "after")
        for folder in (self.path, *places):
            for path in folder.glob(HALF_WRITTEN):
                with suppress(OSError):  # another command may have removed it
                    if time.time() - path.stat().st_mtime > HALF_WRITTEN_SECONDS:
                        path.unlink()

    def require_there(self) -> None:
        """Refuse to go on in a folder that was deleted, renamed or emptied under way.

        Raises:
            StudyFolderError: if the study's plan is not in it.
        """
        if not self.plan_path.exists():
            raise StudyFolderError(
                Fault(
                    str(self.path),
                    "the study folder as it was when the command began",
                    "one that was deleted, renamed or emptied since",
                    "Put it back and run the same command, or choose another --out",
                )
            )

    def has_plan(self, spec: StudySpec, run_ids: dict[str, str]) -> bool:
        """Whether exactly this study is planned here."""
        try:
            text = read_file(self.spec_path, MAX_BYTES).decode()
            return self.planned() == run_ids and text == with_checksum(dump_spec(spec))
        except (OSError, ValueError, RecordError):
            return False

    def write_plan(self, spec: StudySpec, run_ids: dict[str, str]) -> None:
        """Keep the resolved study and the identity of each of its runs (run_id -> identity)."""
        atomic_write(self.spec_path, with_checksum(dump_spec(spec)))
        self.write_run_ids(run_ids)

    def write_run_ids(self, run_ids: dict[str, str]) -> None:
        """Keep which runs there are to be: all that is known of those that are imported."""
        plan = {"runs": run_ids}
        atomic_write(self.plan_path, json.dumps({**plan, "checksum": content_hash(plan)}, indent=1))

    def read_spec(self) -> StudySpec | None:
        """The study as it was run; None for a folder of imported records.

        Raises:
            SpecError: if it is no study.
            RecordError: if it is not the one that was run.
        """
        if not self.spec_path.exists():
            return None
        spec = load_spec(self.spec_path)
        if is_altered(self.spec_path.read_text(encoding="utf-8")):
            raise RecordError(
                Fault(
                    str(self.spec_path),
                    "the study as it was run",
                    "a file that was changed since: its checksum differs or is gone",
                    "Remove it and run the study again from your own file; finished runs are kept",
                )
            )
        return spec

    def planned(self) -> dict[str, str] | None:
        """run_id -> identity of the runs there are to be; None where no plan was kept.

        Raises:
            RecordError: if the plan is damaged.
        """
        if not self.plan_path.exists():
            return None
        try:
            plan: Any = json.loads(read_file(self.plan_path, MAX_BYTES))
            runs = plan["runs"]
            if plan["checksum"] != content_hash({"runs": runs}):
                raise ValueError("changed since it was written")
            if not all(map(_is_folder_name, runs)):
                raise ValueError("a run outside of the study folder")
            return {str(run_id): str(identity) for run_id, identity in runs.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RecordError(
                Fault(
                    str(self.plan_path),
                    "the study's plan",
                    "a damaged file",
                    "Run the study, or the import, again; finished runs are kept",
                )
            ) from None

    def recorded(self, run_id: str, identity: str) -> RunRecord | None:
        """The valid record of a run under exactly this identity, else None."""
        try:
            record = read_record(self.record_path(run_id))
        except RecordError:
            return None
        return record if (record.run_id, record.identity) == (run_id, identity) else None

    def finished(self, run_id: str, identity: str) -> RunRecord | None:
        """The valid record of a run that came to its end under exactly this identity, else None."""
        record = self.recorded(run_id, identity)
        return record if record and record.status in ("finished", "diverged") else None

    def settled(self, run_id: str, identity: str, until: int | None = None) -> RunRecord | None:
        """The record of a run that needs no measuring, to its end or until an epoch, else None.

        One that failed is tried again; one that was stopped has come as far as its last epoch.
        """
        record = self.recorded(run_id, identity)
        if record is None or record.status == "failed":
            return None
        if record.status == "stopped":
            far = until is not None and record.history and record.history[-1].epoch >= until
            return record if far else None
        return record

    def has_finished(self) -> bool:
        """Whether any run of the plan is finished, so that there is something to analyse."""
        found = (self.recorded(*run) for run in (self.planned() or {}).items())
        return any(record is not None and record.status == "finished" for record in found)

    def records(self) -> tuple[list[RunRecord], list[Fault]]:
        """Records of the current study, sorted by run id, and the faults of unusable ones.

        With those of trainings from outside. Records of an earlier version of the study lie in
        folders of other names; they are not read.
        A record of another run, or of other data, in the place of a planned one is a fault.

        Raises:
            StudyFolderError: if the folder does not exist.
        """
        if not self.path.is_dir():
            raise StudyFolderError(self.not_there())
        planned = self.planned()
        if planned is None:
            names = sorted(p.parent.name for p in self.runs_path.glob("*/record.json"))
        else:
            outside = {path.parent.name for path in self.runs_path.glob(f"{OUTSIDE}*/record.json")}
            names = sorted(n for n in {*planned, *outside} if self.record_path(n).exists())
        records: dict[str, RunRecord] = {}
        faults: list[Fault] = []
        elsewhere: list[tuple[str, RunRecord]] = []
        for name in names:
            try:
                record = read_record(self.record_path(name))
            except RecordError as error:
                faults += error.faults
                continue
            expected = (planned or {}).get(name, record.identity)
            if (record.run_id, record.identity) == (name, expected):
                records[name] = record
            elif planned is not None:
                faults.append(self._misplaced(name, record))
            else:
                elsewhere.append((name, record))
        # Without a plan, a second folder with a run is a copy, as programs for backups make them.
        faults += [self._misplaced(*it) for it in elsewhere if it[1].run_id not in records]
        return list(records.values()), faults

    def not_there(self) -> Fault:
        """What stands in the place of the folder, and what to do: a bundle has to be opened."""
        if self.path.is_file():
            step = f"Open a bundle first: clipdrift import {self.path} --out results/"
            return Fault(str(self.path), "a study folder", "a file", step)
        return Fault(str(self.path), "a study folder", "nothing there", "Check the path")

    def _misplaced(self, name: str, record: RunRecord) -> Fault:
        got = "that run on other data" if record.run_id == name else f"that of {record.run_id}"
        step = "Restore the file, or run the study again to redo the run"
        return Fault(str(self.record_path(name)), "the record of the run", got, step)


AnyFolder = StudyFolder | str | Path
"""A study folder, or its path."""


def safe_name(text: str) -> str:
    """A name that can be part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("._")[:40] or "unnamed"
