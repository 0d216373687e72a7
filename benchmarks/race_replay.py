"""Replay races, successive halving and random order on the records of whole grids.

    python benchmarks/race_replay.py STUDY... --out replays.json.xz     # unpacked records.tar.xz
    python benchmarks/race_replay.py --simulated 12 --out simulated.json.xz
    python benchmarks/race_replay.py --draw curves.png docs/results/racing/replays.json.xz

Each budget on each target is replayed once for every rotation of the seeds. What is right is the
answer of the whole grid, all seeds and rates, by the same reading (validation accuracy, retention
on the transfer sets), or one within the margin. Compute is in epochs of training, of those of the
whole grid; an epoch of each method counts alike.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from simulated.of_races import made_up

from clipdrift.analysis.questions.budget import Budget
from clipdrift.analysis.questions.draws import Means
from clipdrift.analysis.questions.judged import verdict
from clipdrift.racing.contest import Contest, Entry, Look, Records, Wanted, spent
from clipdrift.racing.standing import Question, judged
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.readings import Result

BUDGETS = (
    *(Budget(min_retention_pct=kept) for kept in (70, 80, 90, 95, 98)),
    *(Budget(within_pp=points) for points in (1, 3, 5, 10)),
    *(Budget(min_accuracy=share) for share in (0.6, 0.7, 0.75, 0.8)),
)
CAPS = (0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
ETAS = (1.5, 2.0, 3.0, 4.0, 8.0)
RANDOM_ORDERS = 10
AT_ONCE = 2
LAST_CAP = max(CAPS)


class Grid(NamedTuple):
    """A target's runs with all of their records, and the means over seeds of each candidate."""

    entries: list[Entry]
    records: dict[str, RunRecord]

    @property
    def epochs(self) -> float:
        return float(len(self.entries))


def grids(folder: Path) -> Iterator[tuple[str, Grid]]:
    """A grid for each target of a study, cells in which a run did not finish left out."""
    records, faults = StudyFolder(folder).records()
    assert not faults, faults
    for target in sorted({record.target for record in records}):
        own = {record.run_id: record for record in records if record.target == target}
        entries = [
            Entry(r.run_id, target, r.method, r.learning_rate, r.seed,
                  r.config["schedule"]["epochs"], r.role == "matched")
            for r in sorted(own.values(), key=lambda r: (r.method, r.learning_rate, r.seed))
        ]  # fmt: skip
        lost = {one.cell for one in entries if own[one.run_id].status != "finished"}
        yield target, Grid([one for one in entries if one.cell not in lost], own)


def rotated(grid: Grid, by: int) -> Grid:
    """The same runs, beginning with another seed."""
    seeds = list(dict.fromkeys(one.seed for one in grid.entries))
    order = [*seeds[by:], *seeds[:by]]
    key = {seed: place for place, seed in enumerate(order)}
    return Grid(sorted(grid.entries, key=lambda e: (e.method, e.learning_rate, key[e.seed])),
                grid.records)  # fmt: skip


def paused(record: RunRecord, epoch: int) -> RunRecord:
    """The record as it would be had the run ended after an epoch."""
    history = [reading for reading in record.history if reading.epoch <= epoch]
    return record.model_copy(update={"status": "stopped", "history": history, "result": Result()})


def means(contest: Contest, records: Records) -> tuple[list[tuple[str, float, float]], Means]:
    """Every candidate with a finished run, and its means over finished seeds."""
    from clipdrift.racing.contest import _alphas, _numbers, _transfers

    alphas = _alphas(records, contest.entries)
    rows = contest._rows(records)
    known = _numbers(rows, records, _transfers(records, contest.entries), alphas)
    with np.errstate(invalid="ignore"):
        there = np.isfinite(known.final).all(axis=-1)
        n = there.sum(axis=1)
        total = np.where(there[..., None], known.final, 0.0).sum(axis=1)
        mean = total / np.maximum(n, 1)[..., None]
    names = [(*cell, alpha) for cell in rows for alpha in alphas]
    keep = (n > 0).ravel()
    flat = mean.reshape(-1, mean.shape[-1])[keep]
    kept = flat[:, 1:].min(axis=1)
    chosen = [name for name, good in zip(names, keep, strict=True) if good]
    return chosen, Means(flat[:, :1], kept[:, None])


def answer(contest: Contest, records: Records) -> tuple[str, float, float]:
    """The best candidate by the means of what is finished, as if it were the whole grid."""
    names, found = means(contest, records)
    _, best = judged(found, contest.question)
    return names[int(best[0])]


class Truth:
    """Which answers are right of the whole grid."""

    def __init__(self, contest: Contest, grid: Grid) -> None:
        names, found = means(contest, grid.records)
        right, _ = judged(found, contest.question)
        self.right = dict(zip(names, right[:, 0].tolist(), strict=True))

    def __call__(self, name: tuple[str, float, float]) -> bool:
        return bool(self.right.get(name, False))


def race(grid: Grid, contest: Contest, truth: Truth) -> Iterator[dict[str, Any]]:
    """One row for every look, until the race is decided or all is measured."""
    records: dict[str, RunRecord] = {}
    entries = {one.run_id: one for one in grid.entries}

    def do(tasks: Sequence[Wanted]) -> None:
        for task in tasks:
            whole = grid.records[task.run_id]
            records[task.run_id] = whole if task.until is None else paused(whole, task.until)

    while True:
        look: Look = contest.look(records)
        if look.before:
            do(look.before)
            continue
        assert look.standing is not None
        assert look.answer is not None
        finished = any(record.status == "finished" for record in records.values())
        sure = finished and look.standing.probability >= contest.question.probability
        yield {
            "share": spent(entries.values(), records) / grid.epochs,
            "probability": look.standing.probability,
            "right": truth(look.answer),
            "decided": sure or not look.options,
        }
        if sure or not look.options or spent(entries.values(), records) > LAST_CAP * grid.epochs:
            return
        do([task for _, task in look.options[:AT_ONCE]])


def halving(grid: Grid, contest: Contest, truth: Truth, eta: float) -> dict[str, Any]:
    """Rungs: an early epoch of every cell, a whole run of 1 / eta, all seeds of 1 / eta^2.

    Reference: Jamieson & Talwalkar (2016), AISTATS; Li et al. (2020), MLSys (ASHA): with one
    worker and all cells at hand both promote the same cells.
    """
    rows = contest._rows({})
    records: dict[str, RunRecord] = {}
    for row in rows.values():
        records[row[0].run_id] = paused(grid.records[row[0].run_id], row[0].early)
    alive = list(rows)
    for rung in (1, 2):
        order = _ranked(contest, alive, rows, records, early=rung == 1)
        alive = order[: max(1, round(len(rows) / eta**rung))]
        for cell in alive:
            for one in rows[cell][: 1 if rung == 1 else None]:
                records[one.run_id] = grid.records[one.run_id]
    own = [one for cell in alive for one in rows[cell]]
    last = Contest(own, contest.question)
    found = answer(last, {one.run_id: records[one.run_id] for one in own})
    return {"share": spent(grid.entries, records) / grid.epochs, "right": truth(found)}


def _ranked(
    contest: Contest, alive: list[Any], rows: Any, records: Records, *, early: bool
) -> list[Any]:
    """Cells, the best first: by what is missing to the floors, then by what decides."""
    accuracy, kept = [], []
    for cell in alive:
        record = records[rows[cell][0].run_id]
        read = record.history[-1] if early else record.result
        accuracy.append(read.val_score or 0.0)
        kept.append(min(t.retention_pct or 0.0 for t in read.transfer.values()))
    found = Means(np.array(accuracy)[:, None], np.array(kept)[:, None])
    missing = verdict(found, contest.question.budget).shortfall_pp[:, 0]
    decides = kept if contest.question.budget.decides == "retention" else accuracy
    return [alive[i] for i in np.lexsort((-np.array(decides), missing))]


def in_order(
    grid: Grid, contest: Contest, truth: Truth, order: Sequence[Entry], cap: float
) -> dict[str, Any]:
    """Whole runs in an order, as far as the compute goes."""
    own = order[: max(1, int(cap * grid.epochs + 1e-9))]
    found = answer(contest, {one.run_id: grid.records[one.run_id] for one in own})
    return {"share": len(own) / grid.epochs, "right": truth(found)}


def replayed(
    name: str, target: str, whole: Grid, n_orders: int, budgets: Sequence[Budget] = BUDGETS
) -> Iterator[dict[str, Any]]:
    """All of it for one target."""
    rng = np.random.default_rng(0)
    for by in range(n_orders):
        grid = rotated(whole, by)
        for budget in budgets:
            contest = Contest(grid.entries, Question(budget))
            truth = Truth(contest, grid)
            steps = list(race(grid, contest, truth))
            by_seed = sorted(grid.entries, key=lambda e: contest.seeds.index(e.seed))
            yield {
                "study": name, "target": target, "order": by, "budget": budget.words,
                "race": steps,
                "halving": {f"{eta:g}": halving(grid, contest, truth, eta) for eta in ETAS},
                "random": {
                    f"{cap:g}": [
                        in_order(grid, contest, truth,
                                 [grid.entries[i] for i in rng.permutation(len(grid.entries))], cap)
                        for _ in range(RANDOM_ORDERS)
                    ]
                    for cap in CAPS
                },
                "seed by seed": {
                    f"{cap:g}": in_order(grid, contest, truth, by_seed, cap) for cap in CAPS
                },
            }  # fmt: skip


def at_cap(steps: Sequence[dict[str, Any]], cap: float) -> dict[str, Any]:
    """The last look that a race with so much compute would have had."""
    return [step for step in steps if step["share"] <= cap + 1e-9 or step is steps[0]][-1]


def told(rows: Sequence[dict[str, Any]]) -> None:
    """The table of what each way reaches."""
    print(f"{len(rows)} replays of {len({(r['study'], r['target'], r['budget']) for r in rows})}")
    print("| way | compute | right |\n|---|---|---|")
    for way, share, right, _ in curves(rows):
        print(f"| {way} | {100 * share:.0f} % | {100 * right:.1f} % |")
    print("| promised | held | looks |\n|---|---|---|")
    for promised, held, n in reliability(rows):
        print(f"| {100 * promised:.0f} % | {100 * held:.0f} % | {n} |")
    ends = [at_cap(row["race"], 0.4) for row in rows]
    decided = [end for end in ends if end["decided"]]
    print(f"decided by 40 %: {len(decided)} of {len(ends)}, of them right "
          f"{np.mean([end['right'] for end in decided]):.3f}; mean compute "
          f"{np.mean([end['share'] for end in ends]):.3f}")  # fmt: skip


def curves(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, float, float, float]]:
    """Way, mean share of compute, share right, its standard error."""
    ways: dict[str, list[list[dict[str, Any]]]] = {
        "race": [[at_cap(row["race"], cap) for row in rows] for cap in CAPS],
        "successive halving": [[row["halving"][f"{eta:g}"] for row in rows] for eta in ETAS],
        "seed by seed": [[row["seed by seed"][f"{cap:g}"] for row in rows] for cap in CAPS],
        "random order": [[o for row in rows for o in row["random"][f"{cap:g}"]] for cap in CAPS],
    }
    for way, points in ways.items():
        for found in points:
            right = np.array([one["right"] for one in found], dtype=float)
            error = right.std() / np.sqrt(len(rows))
            yield way, float(np.mean([o["share"] for o in found])), float(right.mean()), error


def reliability(rows: Sequence[dict[str, Any]]) -> list[tuple[float, float, int]]:
    """Probability that was promised, share that held, looks, by bins of the probability."""
    looks = [step for row in rows for step in row["race"]]
    promised = np.array([step["probability"] for step in looks])
    held = np.array([step["right"] for step in looks], dtype=float)
    edges = np.array([0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0001])
    place = np.digitize(promised, edges) - 1
    return [
        (
            float(promised[place == i].mean()),
            float(held[place == i].mean()),
            int((place == i).sum()),
        )
        for i in range(len(edges) - 1)
        if (place == i).any()
    ]


def draw(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Compute against error, and promised against held."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for way in ("race", "successive halving", "seed by seed", "random order"):
        points = [(share, 1 - good, error) for w, share, good, error in curves(rows) if w == way]
        x, y, e = (100 * np.array(values) for values in zip(*points, strict=True))
        left.errorbar(x, y, e, marker="o", markersize=4, capsize=2, label=way)
    left.axhline(5, color="0.6", linewidth=0.8, linestyle=":")
    left.axvline(40, color="0.6", linewidth=0.8, linestyle=":")
    left.set(xlabel="training, % of the whole grid's epochs (mean)",
             ylabel="wrong answers, %", ylim=(0, None), xlim=(0, 65))  # fmt: skip
    left.legend(frameon=False)
    promised, held, n = zip(*reliability(rows), strict=True)
    right.plot([0, 100], [0, 100], color="0.6", linewidth=0.8)
    right.scatter(100 * np.array(promised), 100 * np.array(held), s=20 + np.array(n) / max(n) * 80)
    right.set(xlabel="probability that the race gives, %", ylabel="right, %")
    figure.savefig(out, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", type=Path, nargs="*")
    parser.add_argument("--simulated", type=int, default=0, help="so many made-up grids")
    parser.add_argument("--seeds", type=int, default=6, help="of made-up grids")
    parser.add_argument("--orders", type=int, default=3, help="rotations of the seeds")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draw", type=Path)
    given = parser.parse_args()
    if given.draw:
        kept = [
            row for path in given.paths for row in json.loads(lzma.decompress(path.read_bytes()))
        ]
        draw(given.draw, kept)
        told(kept)
        return
    rows: list[dict[str, Any]] = []
    for path in given.paths:
        for target, grid in grids(path):
            rows += replayed(path.name, target, grid, given.orders)
            print(path.name, target, len(rows), flush=True)
    for number in range(given.simulated):
        entries, records = made_up(number, given.seeds)
        rows += replayed("simulated", str(number), Grid(entries, records), 1, BUDGETS[2:8:2])
        print("simulated", number, flush=True)
    told(rows)
    if given.out:
        given.out.write_bytes(lzma.compress(json.dumps(rows).encode()))


if __name__ == "__main__":
    main()
