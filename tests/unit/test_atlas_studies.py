"""The studies of many methods: matched, large enough to rank, and all of them trainable."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from small_models import mini_clip

from clipdrift.spec import StudySpec, expand, load_spec
from clipdrift.spec.audit import audit
from clipdrift.study.plan import require_fit

STUDIES = Path(__file__).parents[2] / "studies"
ATLASES = ["method-atlas", "real-small-atlas"]


def spec_of(study: str) -> StudySpec:
    return load_spec(STUDIES / f"{study}.yaml")


@pytest.mark.parametrize("study", ATLASES)
def test_an_atlas_has_ten_methods_at_four_rates_three_seeds_and_two_targets(study: str) -> None:
    spec = spec_of(study)
    runs = expand(spec, precision="float32")
    cells = Counter((r.target.name, r.method.name, r.learning_rate)
                    for r in runs if r.method.role == "matched")  # fmt: skip
    assert set(cells.values()) == {3}
    assert len({target for target, _, _ in cells}) == 2
    assert len({method for _, method, _ in cells}) >= 10
    assert len({rate for _, _, rate in cells}) == 4
    assert len(cells) == 2 * 4 * len(spec.matched_methods())
    statuses = {row.status for row in audit(spec)}
    assert "leak" not in statuses
    assert "varied" not in statuses
    assert 0 < min(spec.evaluation.interpolation) < 1


@pytest.mark.parametrize("study", [*ATLASES, "lora-rank"])
def test_every_method_is_one_that_a_backbone_of_blocks_can_train(study: str) -> None:
    require_fit(spec_of(study), mini_clip())


def test_lora_rank_varies_the_rank_and_nothing_else() -> None:
    spec = spec_of("lora-rank")
    plain = [m.model_dump(exclude={"name", "rank"}) for m in spec.methods]
    assert all(one == plain[0] for one in plain)
    assert {m.name: m.model_dump()["rank"] for m in spec.methods} == {
        f"rank-{rank}": rank for rank in (2, 4, 8, 16, 32)
    }
    assert len(expand(spec, precision="float32")) == 5 * 4 * 3 * 2
    quickstart = spec_of("quickstart")
    for part in ("targets", "transfers", "schedule", "splits", "probe", "seeds", "evaluation"):
        assert getattr(spec, part) == getattr(quickstart, part)
