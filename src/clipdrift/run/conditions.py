"""The conditions of a run: what matched runs must share, and what the reader must be told."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from clipdrift import plugins
from clipdrift.data.builtin import licence, plugin_of
from clipdrift.materials import Materials
from clipdrift.spec import RunConfig, content_hash
from clipdrift.spec.method_base import NO_HEAD
from clipdrift.training.loop import order_fingerprint

TYPICAL = 0.9
"""An accuracy at which the error from images is told before any is read."""
FEW_A_CLASS = 5


def fingerprints(
    config: RunConfig, materials: Materials, head: Mapping[str, Tensor]
) -> dict[str, str]:
    """Hash of each factor that matched runs share; analysis pairs only runs that agree.

    Args:
        head: the classifier's tensors at step 0, as they are and not as they were meant to be.
    """
    target = materials.targets[config.target.name]
    found = {
        "backbone": materials.backbone.sha256,
        "data_split": target.split_sha256,
        "image_order": order_fingerprint(len(target.train), config.schedule, config.seed),
        "head_init": _tensors_hash(head),
        "head": content_hash(config.method.head),
        "head_lr": content_hash(config.method.head_lr),
        "projection": content_hash(config.method.projection),
        "schedule": content_hash(config.schedule.model_dump(mode="json")),
        "precision": content_hash(config.precision),
        "interpolation": content_hash(config.interpolation),
        "probe_set": target.probe_sha256,
        "checkpoint_rule": content_hash(config.checkpoint),
        "transfers": content_hash({n: t.sha256 for n, t in materials.transfers.items()}),
    }
    if config.method.batch_size is not None:  # a factor by itself
        rest = config.schedule.model_dump(mode="json", exclude={"batch_size"})
        found["schedule"] = content_hash(rest)
        found["batch_size"] = content_hash(config.schedule.batch_size)
    if config.method.loss == "contrastive":  # it has no head, and is trained by the prompts
        found = {name: value for name, value in found.items() if name not in NO_HEAD}
        found["prompts"] = content_hash(target.prompts)
    return found


def plugins_of(config: RunConfig) -> dict[str, str]:
    """What other packages add to a run: its name -> package and version.

    Raises:
        PluginError: if one is not installed.
    """
    method = config.method
    used: list[plugins.Plugin] = []
    if method.kind == "plugin":
        used.append(plugins.find("methods", method.type, f"method {method.name} type"))
    for penalty in method.penalties:
        if penalty.kind == "plugin":
            where = f"method {method.name} penalties {penalty.type}"
            used.append(plugins.find("penalties", penalty.type, where))
    for name in config.evaluation.probes:
        used.append(plugins.find("probes", name, f"evaluation.probes {name}"))
    for dataset in (config.target, *config.transfers):
        if (plugin := plugin_of(dataset)) is not None:
            used.append(plugin)
    return {f"{plugin.kind}.{plugin.name}": plugin.origin for plugin in used}


def licences(config: RunConfig) -> dict[str, str]:
    """Transfer set -> licence of its images, of the sets of which one is known."""
    known = {one.name: licence(str(one.builtin)) for one in config.transfers if one.builtin}
    return {name: text for name, text in known.items() if text is not None}


def leaks(config: RunConfig) -> list[str]:
    """What of a run reads the test part before the end, in words."""
    found = []
    if config.checkpoint == "paper_test_selected":
        found.append("checkpoint selected on the test part: its accuracy is too high")
    if config.probe.source == "test":
        found.append("probe images drawn from the test part")
    return found


def copied_images(config: RunConfig, materials: Materials) -> list[str]:
    """Images that a run trains or is chosen on and is then asked about again, in words."""
    return [str(copies) for copies in materials.shared_images[config.target.name].copies]


def data_warnings(config: RunConfig, materials: Materials) -> list[str]:
    """Images left out because they could not be read, equal ones in two classes, prompts cut."""
    target = materials.targets[config.target.name]
    bad = {target.name: target.bad_images}
    bad.update({name: t.bad_images for name, t in materials.transfers.items()})
    unread = [
        f"{name}: {len(images)} unreadable images left out ({', '.join(images[:3])})"
        for name, images in bad.items()
        if images
    ]
    remarks = [target.text_remarks, *(t.text_remarks for t in materials.transfers.values())]
    told = [text for texts in remarks for text in texts]
    return unread + told + materials.shared_images[config.target.name].contradictions


def validation_warnings(materials: Materials) -> list[str]:
    """What validation parts are too small for, by target; none of a target without one."""
    found = []
    for name, target in materials.targets.items():
        counts = np.bincount(target.val.labels, minlength=len(target.prompts))
        n, least = int(counts.sum()), int(counts.min())
        if not n:
            continue
        if target.score_name == "mean_recall":
            found += _few_pairs(name, n)
        if target.score_name != "accuracy":
            continue
        error = 200 * math.sqrt(TYPICAL * (1 - TYPICAL) / n)
        if error > 1:
            found.append(
                f"target {name}: on {n:,} validation images two standard errors of an accuracy of "
                f"{100 * TYPICAL:.0f} % are {error:.1f} points: a difference of 1 point "
                "is less than that"
            )
        if least < FEW_A_CLASS:
            found.append(
                f"target {name}: {least} validation images in its smallest class, "
                f"fewer than {FEW_A_CLASS}"
            )
    return found


def _few_pairs(name: str, n: int) -> list[str]:
    """Of recalls that are not all 0 or 1 for an image the error is less."""
    error = 100 / math.sqrt(n)
    if error <= 1:
        return []
    told = f"target {name}: on {n:,} validation images two standard errors of a mean recall of "
    return [told + f"50 % are up to {error:.1f} points"]


def _tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().cpu().numpy().tobytes())
    return digest.hexdigest()
