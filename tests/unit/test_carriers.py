"""Which part is named, and when it cannot be told: against scipy, and noise of a known size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from clipdrift.analysis.questions.carriers import Carrier, Place, carrier
from clipdrift.analysis.questions.located import rows
from clipdrift.records.located import EditRow, LocatedRun

N = 6
PLACES: list[Place] = [
    *(place for b in (1, 2, 3) for place in ((b, "block"), (b, "attention"), (b, "mlp"))),
    *((None, "embeddings"), (None, "projection")),
]
ABOVE: dict[Place, float | None] = dict.fromkeys(PLACES, 5.0)


def carried(by: dict[Place, float], seed: int = 0, sd: float = 1.0) -> dict[Place, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {place: by.get(place, 0.0) + sd * draw.standard_normal(N) for place in PLACES}


LOST = np.array([20.0, 22.0, 19.0, 21.0, 20.5, 18.0])


def test_the_part_that_stands_out_is_named_with_the_p_of_scipy() -> None:
    parts = carried({(2, "block"): 19.0, (2, "mlp"): 18.0})
    found = carrier(LOST, parts, ABOVE)
    assert (found.block, found.kind, found.words) == (2, "mlp", "block 2, mlp")
    assert found.share == pytest.approx(parts[2, "mlp"].mean() / LOST.mean())
    whole = [(1, "block"), (3, "block"), (None, "embeddings"), (None, "projection")]
    raw = sorted(stats.ttest_rel(parts[2, "block"], parts[o]).pvalue for o in whole)
    inside = stats.ttest_rel(parts[2, "mlp"], parts[2, "attention"]).pvalue
    holm = max(p * (len(raw) - i) for i, p in enumerate(raw))
    assert found.p == pytest.approx(max(holm, inside))


def test_a_block_is_named_without_its_kind_where_two_kinds_carry_as_much() -> None:
    found = carrier(LOST, carried({(3, "block"): 19, (3, "mlp"): 9, (3, "attention"): 9}), ABOVE)
    assert (found.block, found.kind, found.words) == (3, "block", "block 3")
    assert found.reason == "no kind of module in it stands out from the others"


@pytest.mark.parametrize(
    ("lost", "parts", "above", "reason"),
    [
        (LOST[:1], {p: v[:1] for p, v in carried({(1, "block"): 19}).items()}, ABOVE,
         "one seed: cannot tell"),
        (LOST - 20, carried({(1, "block"): 19}), ABOVE,
         "no loss that stands out from its own spread"),
        (LOST, carried({(1, "block"): 9, (2, "block"): 9}), ABOVE,
         "no block stands out from the others"),
        (LOST, carried({(1, "block"): 19}), dict.fromkeys(PLACES, -1.0),
         "a random change of the same size does as much"),
    ],
)  # fmt: skip
def test_it_says_why_it_cannot_tell(
    lost: np.ndarray,
    parts: dict[Place, np.ndarray],
    above: dict[Place, float | None],
    reason: str,
) -> None:
    found = carrier(lost, parts, above)
    assert (found.kind, found.words, found.reason) == (None, "cannot tell", reason)


def test_among_equal_parts_one_is_named_in_fewer_than_one_of_twenty_studies() -> None:
    """All parts carry the same: any name is wrong."""
    named = [
        carrier(LOST, carried(dict.fromkeys(PLACES, 3.0), seed), ABOVE).kind for seed in range(400)
    ]
    assert sum(kind is not None for kind in named) < 20
    assert Carrier().words == "cannot tell"


def test_images_that_are_all_alike_still_name_a_part() -> None:
    """Every image lost, and every one brought back by one block: no spread, and no doubt."""
    lost = np.full(100, 100.0)
    parts = {place: np.zeros(100) for place in PLACES} | {(1, "block"): lost, (1, "mlp"): lost}
    assert carrier(lost, parts, ABOVE).kind is None
    assert carrier(lost, parts, ABOVE, floor=10.0).words == "block 1, mlp"


def row(edit: str, of: str, block: int | None, kind: str, change: float, **more: object) -> EditRow:
    body = {"edit": edit, "of": of, "block": block, "kind": kind, "change_pp": change, **more}
    return EditRow.model_validate({"dataset": "shapes100", "score": 0.5, **body})


def test_rows_of_the_analysis_are_paired_over_seeds(make_records) -> None:  # type: ignore[no-untyped-def]
    records = make_records(targets=("digits",), methods=("lora",), rates=(1e-5,))
    assert len(records) == 3
    draw = np.random.default_rng(1)
    runs, changes, patterns = {}, {}, []
    for record in records:
        lost, back, cost = (v + draw.standard_normal() for v in (20, 9, -3))
        found = [
            row("graft", "untouched", None, "all", -lost),
            row("attention_other_model", "adapted", None, "attention", back),
            row("attention_other_model", "untouched", None, "attention", cost),
        ]
        patterns.append(((back - cost) / 2, lost))
        for block in (1, 2, 3):
            for edit, of, sign in (("revert", "adapted", 1), ("graft", "untouched", -1)):
                change = sign * (18.0 if block == 2 else 0.0) + 0.1 * draw.standard_normal()
                found.append(row(edit, of, block, "block", change, control_pp=-1.0, moved_rel=0.1))
                changes.setdefault((edit, block), []).append(change)
        runs[record.run_id] = LocatedRun(
            run_id=record.run_id,
            run=record.identity,
            identity="",
            what=["weights"],
            draws=1,
            n_images=200,
            rows=found,
        )
    effects, places = rows(records, runs)
    p = {b: stats.ttest_1samp(changes["revert", b], 0).pvalue for b in (1, 2, 3)}
    for i, (block, raw) in enumerate(sorted(p.items(), key=lambda one: one[1])):
        (one,) = (e for e in effects if (e.edit, e.block) == ("revert", block))
        assert one.change_pp == pytest.approx(np.mean(changes["revert", block]))
        if i == 0:
            assert one.p_holm == pytest.approx(3 * raw)
        low, high = stats.t.interval(0.95, 2, one.change_pp, stats.sem(changes["revert", block]))
        assert (one.ci_low, one.ci_high) == pytest.approx((low, high))
        assert one.control_pp == -1.0
    (place,) = places
    assert (place.carried_by, place.block, place.n) == ("block 2", 2, 3)
    carried_by_them, lost = np.array(patterns).T
    assert place.attention_share == pytest.approx(carried_by_them.mean() / lost.mean())
    for share in (place.attention_low, place.attention_high):
        assert stats.ttest_1samp(carried_by_them - share * lost, 0).pvalue == pytest.approx(0.05)
    # One seed alone has no interval, and says so; runs read otherwise are not mixed.
    first = records[0].run_id
    (alone,) = rows(records, {first: runs[first]})[1]
    assert (alone.carried_by, alone.reason) == ("cannot tell", "one seed: cannot tell")
    assert alone.attention_share is None
    other = runs[first].model_copy(update={"draws": 5})
    assert rows(records, {**runs, first: other})[1][0].n == 1
    assert rows(records, {})[0] == []
