"""Races: what is drawn of a grid, who is right, what comes next, and what cannot be raced."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_records import synthetic_records

from clipdrift.analysis.questions.budget import Budget
from clipdrift.analysis.questions.draws import Means
from clipdrift.errors import RecordError, SpecError
from clipdrift.racing import imputed as drawing
from clipdrift.racing import standing as standings
from clipdrift.racing.contest import Contest, Entry, spent
from clipdrift.racing.imputed import Numbers, imputed
from clipdrift.racing.limit import limit
from clipdrift.racing.standing import N_DRAWS, Question, judged, standing
from clipdrift.records import RunRecord
from clipdrift.records.readings import Result

KEEP = Question(Budget(min_retention_pct=90.0))


def numbers(final: np.ndarray, rng: np.random.Generator, *, n_done: int) -> Numbers:
    """Early readings of the first seed of every cell, final ones of its first `n_done`."""
    early = np.full(final.shape[:2] + final.shape[3:], np.nan)
    early[:, 0] = final[:, 0, 0] - rng.uniform([0.05, 0.0], [0.1, 1.0], (len(final), 2))
    known = final.copy()
    known[:, n_done:] = np.nan
    rates = 10.0 ** np.linspace(-5, -3, len(final))
    return Numbers(early, known, rates, np.ones((len(final), 1), dtype=bool))


def grid(rng: np.random.Generator, n_cells: int = 5, n_seeds: int = 3) -> np.ndarray:
    cells = np.stack([np.linspace(0.5, 0.9, n_cells), np.linspace(99, 60, n_cells)], axis=-1)
    noise = rng.normal(0, [0.01, 0.5], (n_cells, n_seeds, 1, 2))
    return np.asarray(cells[:, None, None] + noise)


def test_a_whole_grid_is_drawn_as_it_is() -> None:
    rng = np.random.default_rng(0)
    final = grid(rng)
    found = imputed(numbers(final, rng, n_done=3), 50, rng)
    assert np.allclose(found, final.mean(axis=1)[..., None], rtol=0, atol=1e-12)


def test_draws_have_the_moments_of_the_joint_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conditional mean and covariance by the inverse of the joint precision, at known SDs."""
    rng = np.random.default_rng(1)
    sds = np.array([0.7, 0.4, 0.3, 0.2, 0.25])
    scales = [(np.log(sds) - drawing.TYPICAL) / drawing.SPREAD] * drawing.N_SCALES
    monkeypatch.setattr(drawing, "_scales", lambda *given: scales)
    monkeypatch.setattr(drawing, "WIDEN", 1.0)
    x = rng.standard_normal((4, 2))
    cell, seed = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    joint = np.array(
        [
            [
                sds[0] ** 2 * (1 + x[cell[i]] @ x[cell[j]])
                + sds[1] ** 2 * np.exp(-((x[cell[i]] - x[cell[j]]) ** 2).sum() / 4)
                + sds[2] ** 2 * (cell[i] == cell[j])
                + sds[3] ** 2 * (seed[i] == seed[j])
                + (sds[4] ** 2 + drawing.JITTER) * (i == j)
                for j in range(12)
            ]
            for i in range(12)
        ]
    )
    gain = rng.standard_normal((4, 3))
    known = rng.permutation(12) < 5
    given = np.where(known.reshape(4, 3), gain, np.nan)
    draws = drawing._drawn(given, drawing._parts(x, 3), 40_000, rng).reshape(12, -1)
    precision = np.linalg.inv(joint)
    free = ~known
    cov = np.linalg.inv(precision[np.ix_(free, free)])
    mean = -cov @ precision[np.ix_(free, known)] @ gain.ravel()[known]
    # 40,000 draws: errors of means are SD / 200.
    assert np.abs(draws[free].mean(axis=1) - mean).max() < 5 * np.sqrt(cov.max()) / 200
    assert np.abs(np.cov(draws[free]) - cov).max() < 0.05 * cov.max()


def test_the_sds_that_are_drawn_follow_the_runs() -> None:
    """Without runs the prior; runs that differ little within cells make the drawn SD small."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((8, 2))
    parts = drawing._parts(x, 3)
    nothing = parts[:, :0, :0], x[:0, 0]
    prior = np.array([one for _ in range(40) for one in drawing._scales(*nothing, rng)])
    assert np.abs(prior.mean(axis=0)).max() < 0.15
    assert np.abs(prior.std(axis=0) - 1).max() < 0.15
    for sd in (0.01, 1.0):
        runs = np.repeat(rng.normal(0, 1.0, 8), 3) + rng.normal(0, sd, 24)
        drawn = np.array(drawing._scales(parts, runs, rng))[:, 4]
        assert np.median(np.exp(drawing.TYPICAL[4] + drawn)) == pytest.approx(sd, rel=0.8)


def test_the_surer_leader_leads_and_the_sure_losers_are_worth_nothing() -> None:
    rng = np.random.default_rng(3)
    found = standing(numbers(grid(rng), rng, n_done=2), KEEP, rng)
    assert found.leader == (1, 0)  # 99, 89.25, ...: only the first two are near the floor of 90
    assert found.worth[2:].tolist() == [0, 0, 0]
    assert found.worth.sum() == pytest.approx(1 - found.probability, abs=0.001)


def test_what_is_open_is_divided_by_what_is_left_to_learn_of_two_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Accuracies with SDs of 3 and 1 points, and a third one that is known: 9 : 1 and nothing."""
    rng = np.random.default_rng(3)
    known = numbers(grid(rng, n_cells=3), rng, n_done=1)
    drawn = np.full((3, 1, 2, N_DRAWS), 99.0)
    drawn[:, 0, 0] = rng.normal([[0.81], [0.80], [0.70]], [[0.03], [0.01], [0.0]], (3, N_DRAWS))
    monkeypatch.setattr(standings, "imputed", lambda *_: drawn.copy())
    found = standing(known, KEEP, rng)
    assert found.worth.sum() == pytest.approx(1 - found.probability)
    assert found.worth / found.worth.sum() == pytest.approx([0.9, 0.1, 0], abs=0.02)


def test_where_none_meets_the_floors_the_nearest_miss_is_right() -> None:
    means = Means(np.array([[0.9], [0.5], [0.5]]), np.array([[80.0], [85.0], [84.5]]))
    right, best = judged(means, KEEP)
    assert (right[:, 0].tolist(), best.tolist()) == ([False, True, True], [1])


def raced(records: list[RunRecord]) -> tuple[Contest, dict[str, RunRecord]]:
    entries = [
        Entry(r.run_id, r.target, r.method, r.learning_rate, r.seed, 2) for r in records
    ]  # fmt: skip
    return Contest(entries, KEEP), {r.run_id: r for r in records}


def paused(record: RunRecord) -> RunRecord:
    history = [one for one in record.history if one.epoch <= 1]
    return record.model_copy(update={"status": "stopped", "history": history, "result": Result()})


def test_a_race_reads_every_cell_once_then_ends_with_the_answer_of_the_grid() -> None:
    contest, whole = raced(synthetic_records(targets=("digits",)))
    done: dict[str, RunRecord] = {}
    first = contest.look(done)
    assert [(task.until, task.cost) for task in first.before] == [(1, 0.5)] * 8
    assert {whole[task.run_id].seed for task in first.before} == {7}
    done |= {task.run_id: paused(whole[task.run_id]) for task in first.before}
    while True:
        look = contest.look(done)
        again = contest.look(dict(reversed(done.items())))
        assert (look.answer, look.options) == (again.answer, again.options)
        assert look.standing is not None
        finished = any(record.status == "finished" for record in done.values())
        if not look.options or (finished and look.standing.probability >= 0.95):
            break
        task = look.options[0][1]
        seeds = [one.seed for one in contest.entries if one.cell == _cell(whole[task.run_id])]
        earlier = seeds[: seeds.index(whole[task.run_id].seed)]
        cells = [r.seed for r in done.values() if _cell(r) == _cell(whole[task.run_id])]
        assert set(earlier) <= set(cells)  # seeds are taken in order, so cells share them
        done[task.run_id] = whole[task.run_id]
    assert spent(contest.entries, done) < 0.7 * len(contest.entries)
    every = contest.look(whole)
    assert every.standing is not None
    assert every.standing.probability == 1.0
    assert look.answer == every.answer


def _cell(record: RunRecord) -> tuple[str, float]:
    return record.method, record.learning_rate


def test_a_cell_with_a_run_that_diverged_is_out() -> None:
    contest, whole = raced(synthetic_records(targets=("digits",)))
    answer = contest.look(whole).answer
    assert answer is not None
    lost = next(r for r in whole.values() if _cell(r) == answer[:2])
    found = contest.look({**whole, lost.run_id: lost.model_copy(update={"status": "diverged"})})
    assert found.answer is not None
    assert found.answer[:2] != answer[:2]


def test_without_a_retention_there_is_nothing_to_race_for() -> None:
    contest, whole = raced(synthetic_records(targets=("digits",)))
    for record in whole.values():
        record.result.transfer, record.history[1].transfer = {}, {}
    with pytest.raises(RecordError, match="--race: expected a transfer set that the untouched"):
        contest.look(whole)


@pytest.mark.parametrize(
    ("rate", "beyond"), [(1e-4, 3.3e-4), (3e-5, None), (1e-5, None), (3e-6, 9e-7)]
)
def test_a_rate_is_added_beyond_the_edge_where_the_best_lies(
    rate: float, beyond: float | None
) -> None:
    contest, _ = raced(synthetic_records(targets=("digits",)))
    assert contest.beyond(("lora", rate, 0.5)) == beyond


@pytest.mark.parametrize("text", ["", "40", "0%", "120%", "2 days", "-1h"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"--race: expected a time .* Write for example --race 40%"):
        limit(text)


def test_what_is_left_is_counted_in_whole_runs() -> None:
    assert limit("40%").left(50, 12.0, 0.0, 2) == 8.0
    assert limit("30 runs").left(50, 12.0, 0.0, 2) == 18.0
    # 2 hours of two workers, one of them spent on 10 runs.
    assert limit("2h").left(50, 10.0, 3600.0, 2) == 30.0
    assert limit("2h").left(50, 0.0, 0.0, 2) == float("inf")
