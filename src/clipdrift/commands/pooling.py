"""Several studies read together, and what that gives as files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipdrift.errors import Fault, RecordError, SpecError, did_you_mean
from clipdrift.records import AnyFolder, StudyFolder, atomic_write
from clipdrift.records.bundle import RECORDS, SUFFIX, opened
from clipdrift.records.writing import require_free

if TYPE_CHECKING:
    from clipdrift.analysis.pooled import Joined, Pooled, StudyEffect

POOLED = "pooled.json"


class Pool(NamedTuple):
    """Which studies are one, what each says, what all say, and records that were left out."""

    studies: list[Joined]
    effects: list[StudyEffect]
    pooled: list[Pooled]
    folders: list[Path]
    """Of studies that were joined: a study folder each, with the runs of all."""
    faults: list[Fault]


@contextmanager
def _named(places: Sequence[AnyFolder]) -> Iterator[dict[str, StudyFolder]]:
    """Study folders by a name for people; bundles are open for as long as this is."""
    with ExitStack() as until_done:
        found: dict[str, StudyFolder] = {}
        for i, place in enumerate(places):
            name = StudyFolder.at(place).path.absolute().name.removesuffix(SUFFIX)
            folder, manifest = until_done.enter_context(opened(place))
            name = name if manifest is None else manifest.title
            found[name if name not in found else f"{name} ({i + 1})"] = folder
        yield found


def pool(*studies: AnyFolder, out: str | Path, methods: Sequence[str] = ()) -> Pool:
    """Join studies that agree, and pool the others: what two methods differ by, over studies.

    Studies are joined where fingerprints and the options of methods agree at every backbone and
    target that they share: their runs are then one study, written to `out`/joined-N. Over what is
    left a random-effects meta-analysis of the difference of every two methods of the same names, in
    retention at equal accuracy and in accuracy at best rates.

    Args:
        studies: two or more folders or bundles.
        out: new or empty folder, or that of an earlier pool: pooled.json, tables, forest plots.
        methods: those to compare; default every two.

    Raises:
        SpecError: if a method is in none of the studies.
        RecordError: if a study has no finished run.
        StudyFolderError: if a study is not there, or `out` holds something else.
    """
    from clipdrift.analysis.pooled import join
    from clipdrift.analysis.pooled import pool as over
    from clipdrift.analysis.pooled.join import Study

    place = Path(out)
    if len(studies) < 2:
        raise SpecError(Fault("studies", "two or more", str(len(studies)), "Name another"))
    step = "Choose another --out; a pool is no study folder"
    require_free(place, ours=(place / POOLED).is_file(), step=step)
    with _named(studies) as folders:
        read, faults = [], []
        for name, folder in folders.items():
            records, own = folder.records()
            if not any(record.status == "finished" for record in records):
                step = "Leave it out, or run it first"
                nothing = Fault(str(folder.path), "at least one finished run", "none", step)
                raise RecordError([nothing, *own])
            read.append(Study(name, records, folder.read_spec()))
            faults += own
        _check_methods(methods, {r.method for one in read for r in one.records})
        joined = join(read)
        effects, pooled = over(joined, methods)
        made = _write_joined(joined, folders, place)
    _write(joined, effects, pooled, place)
    return Pool(joined, effects, pooled, made, faults)


def _check_methods(asked: Sequence[str], known: set[str]) -> None:
    faults = [
        Fault("--method", f"one of {', '.join(sorted(known))}", repr(name), step)
        for name in asked
        if name not in known
        for step in [did_you_mean(name, sorted(known), "Correct the name")]
    ]
    if faults:
        raise SpecError(faults)


def _write_joined(
    joined: Sequence[Joined], folders: dict[str, StudyFolder], place: Path
) -> list[Path]:
    """A study folder of each group that is more than one study, with the files beside records."""
    place.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for group in (one for one in joined if len(one.studies) > 1):
        folder = StudyFolder(place / f"joined-{len(made) + 1}")
        shutil.rmtree(folder.path, ignore_errors=True)
        folder.create()
        folder.write_run_ids({record.run_id: record.identity for record in group.records})
        for study in reversed(group.studies):  # of a run that several have, the first counts
            source = folders[study.name]
            for record in study.records:
                for path in sorted(source.run_path(record.run_id).glob("*")):
                    name = path.relative_to(source.path).as_posix()
                    if RECORDS.fullmatch(name):
                        folder.run_path(record.run_id).mkdir(exist_ok=True)
                        shutil.copyfile(path, folder.path / name)
        made.append(folder.path)
    return made


def _write(
    joined: Sequence[Joined],
    effects: Sequence[StudyEffect],
    pooled: Sequence[Pooled],
    place: Path,
) -> None:
    from clipdrift.analysis.files import csv_of, to_json
    from clipdrift.analysis.pooled import Pooled, StudyEffect
    from clipdrift.report.forest import forest_figures

    told = [
        {"studies": [s.name for s in g.studies], "apart": g.apart, "repeated_runs": g.repeated}
        for g in joined
    ]
    each, over = [vars(row) for row in effects], [vars(row) for row in pooled]
    atomic_write(place / POOLED, to_json({"studies": told, "effects": each, "pooled": over}))
    atomic_write(place / "tables" / "effects.csv", csv_of(StudyEffect, each))
    atomic_write(place / "tables" / "pooled.csv", csv_of(Pooled, over))
    for name, data in forest_figures(effects, pooled):
        atomic_write(place / "figures" / name, data)
