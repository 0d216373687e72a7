"""A study raced: batches of runs until the answer of the whole grid is known, or nothing is left.

Every decision follows from the records, the question and the limit; the log says what was decided.
So an interrupted race goes on with the same command, and any executor will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clipdrift.analysis.questions.budget import budget
from clipdrift.errors import Fault, RecordError, SpecError
from clipdrift.executors import Executor
from clipdrift.racing.contest import Contest, Entry, Look, Wanted, spent
from clipdrift.racing.limit import Limit
from clipdrift.racing.limit import limit as read_limit
from clipdrift.racing.standing import Question
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.race_log import Leader, RaceLog, Step, read_race
from clipdrift.spec import AnyStudy, StudySpec, as_spec, expand
from clipdrift.study.measure import Outcome, run_study
from clipdrift.study.missing_runs import OnEvent
from clipdrift.study.plan import PlannedRun
from clipdrift.study.tasks import Task

SMALLEST_RATE, LARGEST_RATE = 1e-9, 1.0


def race(
    study: AnyStudy,
    out: Path | str,
    limit: str,
    *,
    min_accuracy: float | None = None,
    within: float | None = None,
    min_retention: float | None = None,
    margin: float = 1.0,
    probability: float = 0.95,
    executor: Executor | None = None,
    workers: int = 2,
    cache_dir: Path | None = None,
    track: str | None = None,
    on_event: OnEvent = lambda event: None,
) -> tuple[Outcome, RaceLog]:
    """Measure runs of a study until it is known which candidate the whole grid would choose.

    Args:
        limit: what may be spent, such as "2h", "40%" or "60 runs"; a race that is not decided by
            then says so.
        min_accuracy: floor on target accuracy, percent.
        within: or percentage points below the best accuracy; 1 where there is no floor.
        min_retention: floor on retention, percent of the untouched accuracy.
        margin: percentage points by which an answer may miss the best one and be right.
        probability: that it is right, from which on a target is decided.
        workers: runs at once: so many are asked for at a time.

    Raises:
        SpecError: if the study cannot be raced, or the limit does not reach for a first reading.
        ClipdriftError: as `run_study`.
    """
    spec = as_spec(study)
    if faults := list(_faults(spec)):
        raise SpecError(faults)
    folder = StudyFolder(Path(out).absolute())
    floors = budget(min_accuracy=min_accuracy, within_pp=within, min_retention=min_retention)
    asked, most = Question(floors, margin, probability), read_limit(limit)
    running = _Race(spec, asked, most, max(2, workers), on_event, _log(folder, spec, asked, most))
    while True:
        running.wider = False
        outcome = run_study(
            running.wide_spec(),
            folder.path,
            executor=executor,
            cache_dir=cache_dir,
            batches=running.batches,
            track=track,
            on_event=on_event,
        )
        if not running.wider:
            return outcome, running.log


def _faults(spec: StudySpec) -> Iterator[Fault]:
    if spec.evaluation.epoch_transfer_images == 0:
        rule = "a study that reads its transfers after epochs, so that a race can judge early"
        yield Fault("--race", rule, "epoch_transfer_images: 0", "Raise it under evaluation")
    if spec.checkpoint == "paper_test_selected":
        rule = "a study that chooses by validation images"
        yield Fault("--race", rule, spec.checkpoint, "Write checkpoint: best_validation")
    for splits in {
        id(s): s for s in (spec.splits, *(t.splits for t in spec.targets)) if s
    }.values():
        if splits.val_fraction == 0:
            rule = "a study with validation images"
            yield Fault("--race", rule, "val_fraction: 0", "Leave val_fraction away")


def _log(folder: StudyFolder, spec: StudySpec, question: Question, limit: Limit) -> RaceLog:
    """The log of the folder, if it is of the same question; its steps and rates count on."""
    asked = RaceLog(
        budget=question.budget.words,
        limit=limit.words,
        margin_pp=question.margin_pp,
        probability=question.probability,
        n_runs=len(expand(spec, precision="float32")),
    )
    try:
        there = read_race(folder)
    except RecordError:  # it follows from the records
        return asked
    if there is None or there.question != asked.question:
        return asked
    return there.model_copy(update={"limit": limit.words})


@dataclass
class _Race:
    """The race under way; `wider`: rates were added, so the study has to be planned anew."""

    spec: StudySpec
    question: Question
    limit: Limit
    at_once: int
    on_event: OnEvent
    log: RaceLog
    wider: bool = False
    contests: dict[str, Contest] = field(default_factory=dict)

    def wide_spec(self) -> StudySpec:
        """The study with the rates that were added on any target."""
        added = {rate for rates in self.log.rates_added.values() for rate in rates}
        rates = sorted({*self.spec.learning_rates, *added})
        return self.spec.model_copy(update={"learning_rates": rates})

    def batches(self, folder: StudyFolder, planned: list[PlannedRun]) -> Iterator[list[Task]]:
        """What is to be measured next, until nothing is."""
        by_id = {run.run_id: run for run in planned}
        entries = [_entry(run) for run in planned]
        self.contests = {
            target: Contest([e for e in entries if e.target == target and self._asked(e)],
                            self.question)
            for target in dict.fromkeys(e.target for e in entries)
        }  # fmt: skip
        if self.log.steps:  # an interrupted call may not have come to its end
            yield _tasks(self.log.steps[-1].measure, by_id)
        while True:
            records = {
                run.run_id: record
                for run in planned
                if (record := folder.recorded(run.run_id, run.identity))
            }
            step = self._next(records, entries)
            self.log.steps.append(step)
            self.log.write(folder)
            if not step.measure:
                return
            yield _tasks(step.measure, by_id)

    def _asked(self, entry: Entry) -> bool:
        """Whether a rate is one of the study's, or was added for this target."""
        added = self.log.rates_added.get(entry.target, [])
        return not entry.matched or entry.learning_rate in {*self.spec.learning_rates, *added}

    def _next(self, records: Mapping[str, RunRecord], entries: list[Entry]) -> Step:
        done = spent(entries, records)
        seconds = sum(record.timing.get("wall_seconds") or 0.0 for record in records.values())
        left = self.limit.left(self.log.n_runs, done, seconds, self.at_once)
        looks = {target: contest.look(records) for target, contest in self.contests.items()}
        wanted = [task for look in looks.values() for task in look.before]
        if not wanted:
            wanted = self._worth(looks, left)
            self._judge(looks, records, wanted, left)
        elif sum(task.cost for task in wanted) > left and not done:
            rule = "as much as a first reading of every cell takes"
            need = f"{100 * sum(t.cost for t in wanted) / self.log.n_runs:.0f}% of the grid"
            raise SpecError(Fault("--race", rule, self.limit.words, f"That is {need}"))
        self.log.spent = done
        self._tell(looks, done, len(wanted))
        return Step(
            spent=done,
            leaders={target: found for target, look in looks.items() if (found := _leader(look))},
            measure={task.run_id: task.until for task in wanted},
        )

    def _worth(self, looks: Mapping[str, Look], left: float) -> list[Wanted]:
        """What is most worth its compute and not beyond the limit, of targets that are open."""
        options = [
            option for look in looks.values() if not self._sure(look) for option in look.options
        ]
        wanted: list[Wanted] = []
        for _, task in sorted(options, key=lambda option: -option[0]):
            if len(wanted) < self.at_once and task.cost <= left + 1e-9:
                wanted.append(task)
                left -= task.cost
        return wanted

    def _sure(self, look: Look) -> bool:
        found = look.standing
        return found is not None and found.probability >= self.question.probability

    def _judge(
        self,
        looks: Mapping[str, Look],
        records: Mapping[str, RunRecord],
        wanted: list[Wanted],
        left: float,
    ) -> None:
        """Which targets are decided; a rate is added where the best lies at an edge."""
        for target, look in looks.items():
            leader = _leader(look)
            if leader is None or look.answer is None:
                continue
            self.log.answers[target] = leader
            done = self._sure(look) or not look.options
            self.log.outcome[target] = "decided" if done else "open" if wanted else "not decided"
            rate = self.contests[target].beyond(look.answer) if done else None
            room = left >= sum(task.cost for task in wanted) + self._first_readings()
            if rate is not None and room and SMALLEST_RATE <= rate <= LARGEST_RATE:
                self.log.rates_added.setdefault(target, []).append(rate)
                self.log.outcome[target] = "open"
                self.wider = True
                text = f"{target}: the best lies at an edge of the rates; {rate:g} is added"
                self.on_event({"event": "prepare", "text": text})
        if self.wider:
            wanted.clear()

    def _first_readings(self) -> float:
        """What one more rate costs at least, in whole runs."""
        return len(self.spec.matched_methods()) / self.spec.schedule.epochs

    def _tell(self, looks: Mapping[str, Look], done: float, n: int) -> None:
        lead = [
            f"{target} {one.name} ({one.probability:.0%})"
            for target, look in looks.items()
            if (one := _leader(look))
        ]
        share = 100 * done / self.log.n_runs
        where = f"in the lead: {', '.join(lead)}" if lead else "a first reading of every cell"
        text = f"race: {share:.0f} % of the grid spent; {where}; next {n} runs"
        self.on_event({"event": "prepare", "text": text})


def _entry(run: PlannedRun) -> Entry:
    c = run.config
    matched = c.method.role == "matched"
    rest = (c.method.name, c.learning_rate, c.seed, c.schedule.epochs, matched)
    return Entry(run.run_id, c.target.name, *rest)


def _tasks(measure: Mapping[str, int | None], by_id: Mapping[str, PlannedRun]) -> list[Task]:
    return [Task(by_id[run_id], until) for run_id, until in measure.items() if run_id in by_id]


def _leader(look: Look) -> Leader | None:
    if look.answer is None or look.standing is None:
        return None
    method, rate, alpha = look.answer
    probability = look.standing.probability
    return Leader(method=method, learning_rate=rate, alpha=alpha, probability=probability)
