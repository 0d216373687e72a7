"""Pictures that stand in two sets, or under two classes: what was learned is then asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.fingerprints import equal_pictures, place_of, same_pictures
from clipdrift.data.images import Images

_NAMED = 3


@dataclass(frozen=True)
class Copies:
    """Images of one set that are pictures of another, or that two classes share.

    equal: those equal pixel by pixel; near: copies that were encoded or resized anew. examples: a
    few of them with the image that each is a copy of.
    """

    of: str
    among: str
    equal: int
    near: int
    n_images: int
    examples: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        kinds = f"{self.equal:,} equal, {self.near:,} nearly" if self.near else "equal"
        shown = ", ".join(f"{one} = {other}" for one, other in self.examples)
        return (
            f"{self.equal + self.near:,} of {self.n_images:,} {self.of} images are copies of "
            f"{self.among} images ({kinds}: {shown})"
        )


class Pool:
    """Several sets of images, and which of them all are one picture."""

    def __init__(self, sets: Mapping[str, Images]) -> None:
        """sets: prepared ones; images that were never prepared have no fingerprints."""
        known = {name: images for name, images in sets.items() if images.prints is not None}
        starts = np.cumsum([0, *map(len, known.values())])
        self._sets = known
        self._at = {
            name: np.arange(start, start + len(images))
            for (name, images), start in zip(known.items(), starts, strict=False)
        }
        self._starts, self._order = starts, list(known.values())
        prints = [images.prints[images.index] for images in self._order]  # type: ignore[index]
        everything = np.concatenate([np.empty((0, 3), dtype=np.uint64), *prints])
        self._equal = equal_pictures(everything)
        self._same = same_pictures(everything, self._pixels)

    def between(self, one: str, other: str) -> Copies | None:
        """The images of `one` that are also in `other`; a view of the very same image is none."""
        if one not in self._sets or other not in self._sets:
            return None
        mine, theirs = self._at[one], self._at[other]
        if self._sets[one].pixels is self._sets[other].pixels:
            seen = np.isin(self._sets[one].index, self._sets[other].index)
            mine = mine[~seen]
        copied = mine[np.isin(self._same[mine], self._same[theirs])]
        return self._copies(copied, theirs, (one, other)) if len(copied) else None

    def in_two_classes(self, names: Sequence[str], class_names: Sequence[str]) -> str | None:
        """Equal images of the sets of one dataset that have another label, in words."""
        known = [name for name in names if name in self._sets]
        at = np.concatenate([np.empty(0, np.int64), *(self._at[name] for name in known)])
        labels = np.concatenate([np.empty(0, np.int64), *(self._sets[n].labels for n in known)])
        _, first, group = np.unique(self._equal[at], return_index=True, return_inverse=True)
        other = np.flatnonzero(labels != labels[first][group])
        if not len(other):
            return None
        pairs = [
            " and ".join(
                f"{self._name(int(at[place]))} as {class_names[labels[place]]}"
                for place in (first[group[one]], one)
            )
            for one in other[:_NAMED]
        ]
        return f"{len(other):,} images stand under two classes ({'; '.join(pairs)})"

    def _copies(
        self, copied: NDArray[np.int64], theirs: NDArray[np.int64], names: tuple[str, str]
    ) -> Copies:
        equal = int(np.isin(self._equal[copied], self._equal[theirs]).sum())
        examples = tuple(
            (self._name(one), self._name(int(theirs[self._same[theirs] == self._same[one]][0])))
            for one in copied[:_NAMED].tolist()
        )
        n_images = len(self._sets[names[0]])
        return Copies(*names, equal, len(copied) - equal, n_images, examples)

    def _pixels(self, place: int) -> NDArray[np.uint8]:
        images, position = self._find(place)
        pixels: NDArray[np.uint8] = images.pixels[images.index[position]]
        return pixels

    def _name(self, place: int) -> str:
        images, position = self._find(place)
        return str(images.names[int(images.index[position])])

    def _find(self, place: int) -> tuple[Images, int]:
        number, position = place_of(self._starts, place)
        return self._order[number], position


@dataclass(frozen=True)
class Shared:
    """Pictures that stand in two sets of a study, and those that stand under two classes."""

    copies: list[Copies]
    contradictions: list[str]


def shared_images(
    name: str,
    sets: Mapping[str, Images],
    class_names: Sequence[str],
    transfers: Mapping[str, tuple[Images, Sequence[str]]],
) -> Shared:
    """What the sets of a target have in common, among themselves and with transfer sets.

    Args:
        name: of the target. sets: its "train", "val", "probe" and "test".
        transfers: name -> its images and class names.
    """
    others = {f"{other} (transfer)": images for other, (images, _) in transfers.items()}
    pool = Pool({**sets, **others})
    asked = [(one, "train") for one in (*sets, *others) if one != "train"] + [("test", "val")]
    labelled: list[tuple[str, Sequence[str], Sequence[str]]] = [(name, list(sets), class_names)]
    labelled += [(other, [f"{other} (transfer)"], own) for other, (_, own) in transfers.items()]
    found = [(one, pool.in_two_classes(names, classes)) for one, names, classes in labelled]
    return Shared(
        [copies for pair in asked if (copies := pool.between(*pair))],
        [f"{one}: {text}" for one, text in found if text],
    )
