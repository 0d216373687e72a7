"""Datasets known by name: drawn by code, shipped with a dependency, or listed in the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipdrift import plugins
from clipdrift.data import digits
from clipdrift.data.catalogue import catalogue, open_entry
from clipdrift.data.drawn import landcover, scenes, shapes, textures, world
from clipdrift.data.naming import renamed
from clipdrift.data.parts import PAIRS, DatasetParts, ImagePart, identity_of
from clipdrift.errors import DataError, Fault, brief, did_you_mean
from clipdrift.spec.datasets import DatasetSpec

WORLD_SEED = 20_000_003
"""Neither the seed of the images mini-clip was trained on (0) nor that of its own evaluation."""

LAND_COVER_SEEDS = {"train": 31, "test": 32}
SCENES = {"train": 41, "test": 42}
"""Part -> seed."""
N_SCENES = {"train": 1200, "test": 300}
LAND_COVER_PER_CLASS = {"train": 60, "test": 100}

_Draw = Callable[[], NDArray[np.uint8]]


def open_builtin(spec: DatasetSpec) -> DatasetParts:
    """The parts of `spec.builtin`; images are drawn at 28 px, all of a part at the first `load`.

    Raises:
        DataError: a name that is not known, `class_names` of the wrong length, or what opening a
            dataset of the catalogue raises.
    """
    name = str(spec.builtin)
    if name not in _BUILTIN and name not in catalogue():
        if name not in plugins.installed("datasets"):
            raise DataError(_unknown(name, spec.name))
        return _plugged(name, spec)
    if spec.folder is not None and (name in _BUILTIN or catalogue()[name].folder_names is None):
        raise DataError(_folder_too_much(name, spec))
    if name not in _BUILTIN:
        return open_entry(spec)
    parts = _BUILTIN[name]()
    if spec.class_names is None:
        return DatasetParts(parts)
    return DatasetParts({part: _renamed(parts[part], spec) for part in parts})


def plugin_of(spec: DatasetSpec) -> plugins.Plugin | None:
    """The plugin that a dataset comes from, if it comes from one: names of ours stay ours."""
    name = spec.builtin
    if name is None or name in known_names() or name not in plugins.installed("datasets"):
        return None
    return plugins.find("datasets", name, f"{spec.name}.builtin")


def _plugged(name: str, spec: DatasetSpec) -> DatasetParts:
    where = f"{spec.name}.builtin"
    if spec.folder is not None:
        raise DataError(_folder_too_much(name, spec))
    plugin = plugins.find("datasets", name, where)
    opener = plugins.load(plugin, where)
    expected = "a function without arguments that gives DatasetParts or a mapping of train and "
    expected += "test to ImagePart"
    if not callable(opener):
        raise plugins.wrong_type(plugin, where, expected, opener)
    found = plugins.call(plugin, where, opener)
    parts = found.parts if isinstance(found, DatasetParts) else found
    right = isinstance(parts, dict) and parts and set(parts) <= {"train", "test"}
    if not right or not all(isinstance(part, ImagePart) for part in parts.values()):
        raise plugins.wrong_type(plugin, where, expected, found)
    if spec.class_names is not None:
        parts = {part: _renamed(parts[part], spec) for part in parts}
    return DatasetParts(parts, found.notes if isinstance(found, DatasetParts) else ())


def known_names() -> tuple[str, ...]:
    """Every name that `builtin` may take."""
    return (*_BUILTIN, *catalogue())


def licence(name: str) -> str | None:
    """Of the images of a set known by name; what code of ours draws is under that code's."""
    if name in _BUILTIN:
        return "CC BY 4.0" if name == "digits" else "Apache-2.0"
    return catalogue()[name].licence if name in catalogue() else None


def _unknown(name: str, where: str) -> Fault:
    otherwise = "Use folder, files or hub for other data"
    return Fault(
        f"{where}.builtin",
        f"one of {', '.join(known_names())}",
        brief(name),
        did_you_mean(name.casefold(), known_names(), otherwise),
    )


def _folder_too_much(name: str, spec: DatasetSpec) -> Fault:
    known = catalogue().get(name)
    comes = f"comes from the Hub ({known.hub})" if known else "comes with the package"
    return Fault(
        f"{spec.name}.folder",
        f"no folder beside builtin: {name}, which {comes}",
        str(spec.folder),
        "Remove folder; or remove builtin, and give class_names and templates",
    )


def _renamed(part: ImagePart, spec: DatasetSpec) -> ImagePart:
    return replace(part, class_names=renamed(spec.class_names or (), part.class_names, spec.name))


def _world() -> dict[str, ImagePart]:
    """100 unseen images of each class of the world that mini-clip knows."""
    labels = np.arange(100 * len(world.WORLD_CLASSES), dtype=np.int64) % len(world.WORLD_CLASSES)
    identity = _identity("world", WORLD_SEED, [world, shapes, textures])
    return {
        "test": _drawn(
            "world",
            labels,
            world.WORLD_CLASSES,
            lambda: world.render_world(labels, seed=WORLD_SEED),
            identity,
        )
    }


def _land_cover() -> dict[str, ImagePart]:
    return {part: _land_cover_part(part) for part in ("train", "test")}


def _land_cover_part(part: str) -> ImagePart:
    classes, seed = landcover.LAND_COVER_CLASSES, LAND_COVER_SEEDS[part]
    labels = np.arange(LAND_COVER_PER_CLASS[part] * len(classes), dtype=np.int64) % len(classes)
    return _drawn(
        f"land-cover {part}",
        labels,
        classes,
        lambda: landcover.render_land_cover(labels, seed=seed),
        _identity("land-cover", len(labels), seed, [landcover, world, textures]),
    )


def _scenes() -> dict[str, ImagePart]:
    return {part: _scenes_part(part) for part in ("train", "test")}


def _scenes_part(part: str) -> ImagePart:
    """Images with captions; captions are known only once they are drawn."""
    count, seed = N_SCENES[part], SCENES[part]
    pixels, captions = scenes.render_scenes(count, seed=seed)
    drawn = _drawn(
        f"scenes {part}",
        np.zeros(count, dtype=np.int64),
        (PAIRS,),
        lambda: pixels,
        _identity("scenes", count, seed, [scenes, world, shapes, textures]),
    )
    return replace(drawn, captions=captions)


def _digits() -> dict[str, ImagePart]:
    return {"train": _digits_part("train"), "test": _digits_part("test")}


def _digits_part(part: Literal["train", "test"]) -> ImagePart:
    return _drawn(
        f"digits {part}",
        digits.load_digits_split(part)[1],
        digits.DIGITS_CLASSES,
        lambda: digits.load_digits_split(part)[0],
        _identity("digits", part, [digits]),
    )


def _drawn(
    name: str,
    labels: NDArray[np.int64],
    class_names: tuple[str, ...],
    draw: _Draw,
    identity: str,
) -> ImagePart:
    pixels = cache(draw)
    return ImagePart(
        labels=labels,
        names=[f"{name} {position}" for position in range(len(labels))],
        class_names=class_names,
        load=lambda position: pixels()[position],
        identity=identity,
    )


def _identity(*pieces: object) -> str:
    """Drawn images are what their code is: the last piece lists the modules that draw."""
    *plain, modules = pieces
    assert isinstance(modules, list)
    return identity_of("builtin", *plain, [_source(module) for module in modules])


def _source(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")


_BUILTIN: dict[str, Callable[[], dict[str, ImagePart]]] = {
    "world": _world,
    "land-cover": _land_cover,
    "digits": _digits,
    "scenes": _scenes,
}
