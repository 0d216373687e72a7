"""From a study to the runs it consists of, each with its identity on this machine's data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from clipdrift.backbone import Backbone
from clipdrift.errors import Fault, MethodError, PluginError
from clipdrift.materials import Materials
from clipdrift.methods.adapted import TEXT_FOLDER, build
from clipdrift.penalties.held import held_near
from clipdrift.probes.plugged import require_probes
from clipdrift.records import StudyFolder
from clipdrift.run.conditions import plugins_of
from clipdrift.spec import RunConfig, StudySpec, expand


@dataclass(frozen=True)
class PlannedRun:
    """One run to be: its configuration, its folder's name and its identity."""

    config: RunConfig
    run_id: str
    identity: str


def plan_runs(spec: StudySpec, materials: Materials) -> list[PlannedRun]:
    """All runs of a study whose precision is settled, in order."""
    if spec.precision == "auto":
        raise ValueError("precision: settle it before planning")
    planned = []
    content = {target: materials.content(target) for target in materials.targets}
    for config in expand(spec, precision=spec.precision):
        added = {f"plugin.{name}": origin for name, origin in plugins_of(config).items()}
        identity = config.identity({**content[config.target.name], **added})
        planned.append(PlannedRun(config, config.run_id(identity), identity))
    return planned


def require_fit(spec: StudySpec, backbone: Backbone) -> None:
    """Try every method of a study on its backbone, and find its probes; nothing is trained.

    Raises:
        MethodError: with all that does not fit.
    """
    faults: list[Fault] = []
    try:
        require_probes(spec.evaluation.probes)
    except PluginError as error:
        faults += error.faults
    for method in spec.methods:
        try:
            text = torch.zeros(2, backbone.width) if method.head_init == "text" else None
            model = build(
                backbone, method, n_classes=2, seed=0, text_features=text, prompts=[["a"], ["b"]]
            )
            held_near(method, model, backbone)
            for part, encoder in model.adapted().items():
                text_side = part == TEXT_FOLDER
                untouched = backbone.live_text_encoder() if text_side else backbone.live_encoder()
                faults += model.family.start_faults(encoder, untouched, method)
        except (MethodError, PluginError) as error:
            faults += error.faults
    if faults:
        raise MethodError(faults)


def settle_precision(
    spec: StudySpec, folder: StudyFolder, hardware: Literal["float32", "bfloat16", "auto"]
) -> StudySpec:
    """What `auto` means: as the folder's runs were made, else what the hardware is good at.

    Args:
        hardware: "auto" where it is not known, which leaves an unsettled study unsettled.
    """
    if spec.precision != "auto":
        return spec
    before = folder.read_spec()
    chosen = before.precision if before and before.precision != "auto" else hardware
    return spec.model_copy(update={"precision": chosen})
