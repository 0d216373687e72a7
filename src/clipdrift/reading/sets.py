"""Images that a user names in a call: the probe set of a gauge, and its transfer sets."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image as Picture

from clipdrift.backbone import Backbone
from clipdrift.data.builtin import known_names
from clipdrift.data.cache import prepare
from clipdrift.data.decode import UnreadableImageError, to_square
from clipdrift.data.images import Images
from clipdrift.data.prepared import PreparedPart
from clipdrift.data.splits import balanced_subset
from clipdrift.errors import DataError, Fault, collecting
from clipdrift.materials import TransferMaterial, transfer_material
from clipdrift.spec.datasets import TransferSpec
from clipdrift.spec.load import parse_part
from clipdrift.spec.suites import SUITES

Named = str | Path | Mapping[str, Any]
"""A catalogue name, a folder of class sub-folders, or a dataset as a study file describes one."""
Probe = Named | Sequence[Picture]
Transfers = Sequence[str | Path] | Mapping[str, Named]

MAX_PROBE_IMAGES = 200


def open_probe(probe: Probe, backbone: Backbone, cache_dir: Path) -> Images:
    """The images on which drift is read: all, or a class-balanced part of 200.

    Raises:
        DataError, SpecError: if they cannot be read.
    """
    if not isinstance(probe, (str, Path, Mapping)):
        return _pictures(probe, backbone)
    part = _prepared(_spec("probe", probe), backbone, cache_dir)
    images = Images(part.pixels, np.arange(len(part.labels)), part.labels)
    n = min(MAX_PROBE_IMAGES, len(images))
    return images.select(balanced_subset(images.labels, n, seed=0))


def open_transfers(
    transfers: Transfers, backbone: Backbone, cache_dir: Path
) -> dict[str, TransferMaterial]:
    """The sets that are scored zero-shot, by name; a suite's name stands for its members.

    Raises:
        ClipdriftError: with the faults of all of them together.
    """
    if not isinstance(transfers, Mapping):
        each = [member for one in transfers for member in SUITES.get(str(one), (one,))]
        transfers = {_name_of(one): one for one in each}
    if transfers:
        backbone.require_texts("transfers")
    found, faults = {}, list[Fault]()
    for name, named in transfers.items():
        with collecting(faults):
            spec = _spec(name, named)
            part = _prepared(spec, backbone, cache_dir)
            found[name] = transfer_material(spec, part, backbone, epoch_images=0)
            for text in found[name].text_remarks:
                warnings.warn(text, stacklevel=3)
    if faults:
        raise DataError(faults)
    return found


def _name_of(named: str | Path) -> str:
    """A folder's own name, made safe for a file; a catalogue name as it is."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(named).resolve().name).strip("-._")
    return str(named) if named in known_names() else plain or "transfer"


def _spec(name: str, named: Named) -> TransferSpec:
    if isinstance(named, Mapping):
        return parse_part(TransferSpec, {"name": name, **named}, name)
    source = "builtin" if named in known_names() else "folder"
    return parse_part(TransferSpec, {"name": name, source: str(named)}, name)


def _prepared(spec: TransferSpec, backbone: Backbone, cache_dir: Path) -> PreparedPart:
    return prepare(spec, backbone.square(), cache_dir=cache_dir)["test"]


def _pictures(pictures: Sequence[Picture], backbone: Backbone) -> Images:
    squares, faults = [], []
    for number, picture in enumerate(pictures):
        try:
            squares.append(to_square(picture, *backbone.square()))
        except (UnreadableImageError, AttributeError) as error:
            step = "Pass PIL images, or the folder that they lie in"
            faults.append(Fault(f"probe[{number}]", "a PIL image", str(error), step))
    if len(squares) < 2 and not faults:
        got, step = str(len(squares)), "Pass more images"
        faults.append(Fault("probe", "two or more images", got, step))
    if faults:
        raise DataError(faults)
    return Images(np.stack(squares), np.arange(len(squares)), np.zeros(len(squares), np.int64))
