"""The spectral and geometric panel in a study, in a gauge, and of towers that lack parts of it."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from in_process import by_method, measured_study
from safetensors.torch import load_file
from small_siglip import small_siglip
from tiny_study import tiny

from clipdrift.analysis.files import write_analysis
from clipdrift.backbone import load_backbone
from clipdrift.data.images import Images
from clipdrift.finished.evaluate import evaluate_run
from clipdrift.methods.adapted import NOT_PLAIN
from clipdrift.probes.panel import INSIDE, OUTSIDE, panel_reasons
from clipdrift.probes.similarity import MEASURES
from clipdrift.probes.traces import read_traces
from clipdrift.probes.weight_updates import OF_UPDATES
from clipdrift.reading.gauge import Gauge
from clipdrift.records import StudyFolder
from clipdrift.report import audit_report, write_report
from clipdrift.spec.parts import BackboneSpec

SPEC = tiny(
    methods=[
        "full_ft",
        {"kind": "lora", "rank": 4},
        {"kind": "vpt", "prompts": 2, "depth": "shallow"},
        {"kind": "linear_probe", "role": "reference", "learning_rates": [1e-2]},
    ],
    learning_rates=[3e-3],
    evaluation={"epoch_transfer_images": 20, "panel": True},
)
DEAR = {*OF_UPDATES, "gradient_erf95_pct", "flow_erf95_pct", "flow_entropy_pct"}


@pytest.fixture(scope="module")
def study(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    return measured_study(SPEC, tmp_path_factory.mktemp("panel") / "out", cache_dir, n_runs=4)


def test_the_panel_is_of_the_saved_weights(study: StudyFolder) -> None:
    """Against numpy, by the weights as the run left them."""
    record = by_method(study)["full_ft"]
    folder = study.run_path(record.run_id)
    now, before = (
        load_file(folder / "vision.safetensors"),
        load_backbone(BackboneSpec()).vision_state(),
    )
    table = pd.read_parquet(folder / "weight_updates.parquet").set_index("weight")
    assert "weight_updates.parquet" in record.files
    assert len(table) == 6 * 6
    for name in ("encoder.layers.0.self_attn.q_proj.weight", "encoder.layers.5.mlp.fc2.weight"):
        update = now[name].double() - before[name].double()
        values = torch.linalg.svdvals(update)
        assert table.loc[name, "stable_rank"] == pytest.approx(
            float(values.square().sum() / values[0] ** 2), rel=1e-6
        )
    drift, blocks = record.result.drift, record.result.drift_per_block
    assert drift["update_stable_rank"] == pytest.approx(table["stable_rank"].mean())
    by_block = table.groupby("block")["stable_rank"].mean()
    assert blocks["update_stable_rank"] == pytest.approx(by_block.tolist())
    assert drift["intruder_dimensions"] == table["intruder_dimensions"].sum()
    low_rank = pd.read_parquet(
        study.run_path(by_method(study)["lora"].run_id) / "weight_updates.parquet"
    )
    moved = low_rank.dropna(subset=["stable_rank"])
    assert 0 < len(moved) < 36
    assert moved["effective_rank"].max() < 4.01


def test_embedding_drift_is_split_and_what_stands_still_is_at_rest(study: StudyFolder) -> None:
    for method, record in by_method(study).items():
        drift = record.result.drift
        parts = [drift[INSIDE] or 0.0, drift[OUTSIDE] or 0.0]
        assert sum(parts) == pytest.approx(drift["embedding_drift"], abs=1e-12)
        assert (min(parts) > 0) == (method != "linear_probe")
    still = by_method(study)["linear_probe"]
    rest = {
        f"{name}_{end}": value for name, (_, value) in MEASURES.items() for end in ("mean", "last")
    }
    rest |= {INSIDE: 0.0, OUTSIDE: 0.0, "gradient_erf95_pct": 0.0, "flow_entropy_pct": 0.0}
    assert {name: still.result.drift[name] for name in rest} == rest
    assert still.undefined["drift.update_stable_rank"] == "no weight matrix of the blocks moved"


def test_what_is_dear_is_read_after_epoch_1_and_at_the_end(study: StudyFolder) -> None:
    record = by_method(study)["full_ft"]
    read = {entry.epoch: DEAR & set(entry.drift) for entry in record.history}
    assert {epoch for epoch, names in read.items() if names == DEAR} == {1}
    assert all(not names for epoch, names in read.items() if epoch != 1)
    assert set(record.result.drift) >= DEAR
    levels = record.result.levels
    assert 0 < (levels["gradient_erf95"] or 0) <= 1
    assert 0 < (levels["flow_entropy_bits"] or 0) <= math.log2(49)


def test_prompts_have_activations_and_gradients_and_no_weights(study: StudyFolder) -> None:
    record = by_method(study)["vpt"]
    for name in OF_UPDATES:
        assert record.result.drift[name] is None
        assert record.undefined[f"drift.{name}"] == NOT_PLAIN
    assert (record.result.drift["gram_distortion_mean"] or 0) > 0
    assert record.result.drift["gradient_erf95_pct"] is not None


def test_saved_runs_read_the_same_panel_again(study: StudyFolder, cache_dir: Path) -> None:
    for method in ("full_ft", "vpt"):
        folder = study.run_path(by_method(study)[method].run_id)
        rows = {row.name: row for row in evaluate_run(folder, cache_dir=cache_dir)}
        assert {f"drift.{name}" for name in DEAR} <= set(rows)
        assert [row for row in rows.values() if not row.agrees] == []


@pytest.mark.usefixtures("no_figures")
def test_the_panel_is_analysed_and_reported_as_other_signals(study: StudyFolder) -> None:
    metrics = {row["metric"] for row in write_analysis(study)["cells"]}
    assert {"drift.rsa_mean", "drift.intruder_dimensions", "levels.flow_erf95"} <= metrics
    assert "Procrustes residual" in write_report(study).read_text()
    assert audit_report(study) == []


def test_a_gauge_of_ones_own_reads_the_panel(cache_dir: Path) -> None:
    gauge = Gauge(
        probe={"builtin": "digits", "n_images": 20},
        transfers={"world": {"builtin": "world", "n_images": 40}},
        cache_dir=cache_dir,
        panel=True,
    )
    assert set(gauge.baseline.drift) >= DEAR
    assert "panel" not in tiny().evaluation.model_dump()
    model = copy.deepcopy(gauge.backbone.model)
    assert gauge.read(model).drift == gauge.baseline.drift
    with torch.no_grad():
        model.vision_model.encoder.layers[2].mlp.fc1.weight.mul_(3)
    found = gauge.read(model)
    assert found.drift_per_block["update_stable_rank"][:2] == [None, None]
    assert (found.drift_per_block["gram_distortion"][2] or 0) > 0
    assert found.drift_per_block["gram_distortion"][:2] == [0.0, 0.0]
    assert not {name for name in found.undefined if name.startswith("drift.update")}


def test_a_siglip_has_a_gradient_and_no_flow() -> None:
    backbone = small_siglip()
    encoder = backbone.live_encoder()
    size = encoder.tower.config.image_size
    images = Images(
        np.random.default_rng(0).integers(0, 255, (4, size, size, 3), np.uint8),
        np.arange(4),
        np.arange(4),
    )
    found = read_traces(
        encoder.encode, encoder.tower, encoder.normalise(torch.from_numpy(images.take(slice(None))))
    )
    assert found.flow_erf95 is None
    assert ((found.gradient_erf95 > 0) & (found.gradient_erf95 <= 1)).all()
    reasons = panel_reasons(has_cls=False, not_plain=None)
    assert reasons["levels.flow_erf95"] == "the vision tower has no CLS token: nothing flows to it"
    assert "no CLS activations" in reasons["drift.rsa_mean"]
