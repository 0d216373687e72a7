"""The study that `tune` proposes for a folder of images: data looked at, methods, rates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from clipdrift.backbone import same_texts
from clipdrift.commands.scaffold import study_text
from clipdrift.data.cache import default_cache_dir
from clipdrift.data.fingerprints import equal_pictures
from clipdrift.errors import DataError, Fault, SpecError, brief
from clipdrift.materials import Materials, TargetMaterial, load_materials
from clipdrift.reading.baseline import score
from clipdrift.reading.model import chance
from clipdrift.reading.screening import Predictor
from clipdrift.records.correct import Correct
from clipdrift.spec import StudySpec, expand
from clipdrift.spec.load import dump_spec, parse_spec
from clipdrift.study.ramp import OWN_BELOW, ramps, rates_of

PROBED = {"probe_epochs": 8, "probe_lr": 1e-2}
"""The head is trained alone first: what a head that knows nothing asks of the encoder costs
retention (Kumar et al. 2022), and the head alone costs little."""
METHODS = (
    {"name": "lp_ft", "kind": "lp_ft", **PROBED},
    {
        "name": "held",
        "kind": "lp_ft",
        "penalties": [{"kind": "feature_distillation", "weight": 1.0}],
        **PROBED,
    },
    {
        "name": "lora",
        "kind": "lora",
        "role": "reference",
        "rank": 8,
        "alpha": 16,
        "dropout": 0.05,
        **PROBED,
    },
)
"""LoRA learns at rates at which full fine-tuning breaks, and has its own."""
PROBE = {"name": "linear_probe", "kind": "linear_probe", "role": "reference"}
PROBE_RATES = [1e-3, 1e-2]
"""The encoder stays as it is: what can be had without losing anything."""
ALPHAS = [0.5]
"""In the search, where each costs as much as the reading of a run; finalists are read at more."""
VAL_FRACTION = 0.25
"""More than a study takes: among so many candidates few images choose badly."""
TRANSFER_IMAGES, EARLY_IMAGES, PROBE_IMAGES = 500, 150, 16
"""Of transfer sets, at the end and after each epoch; and those of drift, which do not train."""
IMAGES_SEEN, MOST_EPOCHS, LEAST_EPOCHS = 2500, 12, 4
"""A run sees about so many images: small data are gone through more often."""
KNOWN = 0.05
"""P-value of the zero-shot accuracy against chance, below which heads start at the class texts."""
MOST_UNREADABLE = 0.05
"""A share of unreadable images above which something else is wrong than a few files."""
HEADER = """\
# Proposed by 'clipdrift tune'. Change what you like: the same command goes on with this file.
"""


class Proposal(NamedTuple):
    """A study, its data, and what was seen in them, in sentences."""

    spec: StudySpec
    materials: Materials
    seen: list[str]


def proposed(
    images: Path,
    *,
    backbone: str | None,
    transfers: Sequence[str],
    cache_dir: Path | None,
    say: Callable[[str], None] = lambda text: None,
) -> Proposal:
    """A study of one target; its rates are those of `init` until `with_rates` finds better ones.

    Images that cannot be read are left out while they are few, and copies of a picture stay in one
    part: of a test part of its own they leave the training part.

    Raises:
        ClipdriftError: if the images cannot be used, or the backbone knows no transfer set.
    """
    named = Path(images.resolve().stem).with_suffix(".yaml")
    text = study_text(images, named, backbone=backbone, transfers=transfers)
    settings = [
        "splits.group_by=duplicates",
        *([] if (images / "val").is_dir() else [f"splits.val_fraction={VAL_FRACTION}"]),
        "targets.0.max_bad_images=1000000",  # counted below
        f"methods={json.dumps([*METHODS, {**PROBE, 'learning_rates': PROBE_RATES}])}",
        f"evaluation.interpolation={json.dumps(ALPHAS)}",
        f"evaluation.epoch_transfer_images={EARLY_IMAGES}",
        f"probe.n_images={PROBE_IMAGES}",
    ]
    spec = parse_spec(text, name=str(images), folder=Path.cwd(), settings=settings)
    if spec.targets[0].paired:
        step = "Write a study with 'clipdrift init' and race it: clipdrift run --race"
        raise SpecError(Fault(str(images), "images sorted into classes", "captions", step))
    few = {"n_images": TRANSFER_IMAGES, "too_few": "all"}
    spec = spec.model_copy(update={"transfers": [t.model_copy(update=few) for t in spec.transfers]})
    cache = cache_dir or default_cache_dir()
    materials = load_materials(spec, cache_dir=cache, report=say)
    target = materials.targets[spec.targets[0].name]
    bad, n = target.bad_images, sum(map(len, target.sets.values()))
    if len(bad) > MOST_UNREADABLE * (n + len(bad)):
        got = f"{len(bad):,} unreadable of {n + len(bad):,}: {brief(list(bad))}"
        rule = f"images of which at most {MOST_UNREADABLE:.0%} cannot be read"
        raise DataError(Fault(str(images), rule, got, "Repair or remove them"))
    say("asking the untouched model about the images to choose by")
    head, said = _head(materials, target, spec.evaluation.batch_size)
    update = {
        "targets": [spec.targets[0].model_copy(update={"max_bad_images": len(bad)})],
        "methods": [m.model_copy(update={"head_init": head}) for m in spec.methods],
        "schedule": spec.schedule.model_copy(update={"epochs": _epochs(len(target.train))}),
    }
    seen = [*_seen(materials), said]
    return Proposal(spec.model_copy(update=update), materials, seen)


def with_rates(
    found: Proposal, device: str, say: Callable[[str], None] = lambda text: None
) -> StudySpec:
    """The study with the rates that a ramp of each method finds.

    Args:
        device: chosen, not "auto".
    """
    spec = found.spec
    asked = {method.name for method in spec.methods if method.learning_rates is None}
    runs = [run for run in expand(spec, precision="float32") if run.method.name in asked]
    known = ramps(runs, found.materials, device, say)
    shared = [known[method.name] for method in spec.methods if method.role == "matched"]
    methods = [
        method.model_copy(update={"learning_rates": rates_of([known[method.name]], OWN_BELOW)})
        if method.name in asked and method.role == "reference"
        else method
        for method in spec.methods
    ]
    return spec.model_copy(update={"learning_rates": rates_of(shared), "methods": methods})


def text_of(spec: StudySpec) -> str:
    """The study as the file that people may change."""
    return HEADER + dump_spec(spec)


def _head(materials: Materials, target: TargetMaterial, batch_size: int) -> tuple[str, str]:
    """Where heads start, and why: at class texts only if these say more than chance."""
    if same_texts(materials.backbone, target.prompts, target.name):
        return "random", "some classes have one text for this model: heads start at random"
    text = materials.backbone.text_features(target.prompts)
    found = score(materials.backbone.encoder(), target.val, text, Predictor(batch_size))
    if not isinstance(found, Correct):  # several classes an image
        return "text", "heads start at the class texts"
    guess = chance(target.val.labels)
    known = binomtest(found.hits.sum(), found.n, guess, alternative="greater").pvalue < KNOWN
    told = f"{found.hits.mean():.1%} right without training, chance {guess:.1%}: heads start at "
    return ("text", told + "the class texts") if known else ("random", told + "random")


def _epochs(n_train: int) -> int:
    return min(MOST_EPOCHS, max(LEAST_EPOCHS, round(IMAGES_SEEN / n_train)))


def _copies(target: TargetMaterial) -> int:
    """Images of the target that are, pixel by pixel, the picture of another one."""
    known = [images for images in target.sets.values() if images.prints is not None]
    own = {id(one.pixels): one for one in known}
    prints = [np.asarray(one.prints) for one in own.values()]
    if not prints:
        return 0
    first = equal_pictures(np.concatenate(prints))
    return len(first) - len(np.unique(first))


def _seen(materials: Materials) -> Iterator[str]:
    """What a user must know of the data, in sentences."""
    ((name, target),) = materials.targets.items()
    parts = ", ".join(
        f"{len(target.sets[part]):,} to {what}"
        for part, what in (("train", "train"), ("val", "choose by"), ("test", "test"))
    )
    yield f"{name}: {len(target.prompts):,} classes; images: {parts}"
    if target.bad_images:
        yield f"{len(target.bad_images):,} images cannot be read and are left out: " + brief(
            list(target.bad_images)
        )
    if copies := _copies(target):
        yield f"{copies:,} images equal others; copies of a picture stay in one part"
    shared = materials.shared_images[name]
    yield from (f"warning: {text}" for text in (*shared.copies, *shared.contradictions))
    if any(transfer.bad_images for transfer in materials.transfers.values()):
        yield "some images of transfer sets cannot be read and are left out"
