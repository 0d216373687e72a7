"""A whole part, image by image, into one .npy file that grows without ever being in memory."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipdrift.data.decode import Square, to_square
from clipdrift.data.fingerprints import Prints, fingerprint
from clipdrift.data.parts import ImagePart, Loaded
from clipdrift.machine.devices import available_cores

_Image = tuple[NDArray[np.uint8], Prints]
"""Pixels and fingerprint of one."""

REPORT_EVERY = 1000
_AHEAD = 64
_LARGE = 24_000_000
"""Pixels of an image that is decoded while no other large one is: it takes up to 12 bytes each."""


@dataclass(frozen=True)
class Written:
    """What went into the file: SHA-256 of its pixels, and position -> reason of those left out.

    prints: fingerprints of its images.
    """

    count: int
    pixels_sha256: str
    bad: dict[int, str]
    prints: Prints


def write_pixels(
    part: ImagePart,
    path: Path,
    *,
    square: Square,
    progress: Callable[[int], None],
) -> Written:
    """Decode a part into uint8 [N - bad, S, S, 3] at `path`, in order.

    Args:
        progress: called with the number of images seen, every `REPORT_EVERY`.
    """
    digest, bad = hashlib.sha256(), {}
    prints = np.empty((len(part), 3), dtype=np.uint64)
    with path.open("wb") as file:
        start = _write_header(file, len(part), square.size)
        for position, result in enumerate(decoded(part, square)):
            if isinstance(result, str):
                bad[position] = result
            else:
                pixels, prints[position - len(bad)] = result
                data = np.ascontiguousarray(pixels).tobytes()
                digest.update(data)
                file.write(data)
            if (position + 1) % REPORT_EVERY == 0:
                progress(position + 1)
        file.seek(0)
        # NumPy keeps room for growth in the header, so the true count fits where the first stood.
        assert _write_header(file, len(part) - len(bad), square.size) == start
        file.flush()
        os.fsync(file.fileno())
    count = len(part) - len(bad)
    return Written(count, digest.hexdigest(), bad, prints[:count])


def _write_header(file: Any, count: int, size: int) -> int:
    shape = (count, size, size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return int(file.tell())


def decoded(part: ImagePart, square: Square) -> Iterator[_Image | str]:
    """Images or the reason why there are none, in order; Pillow lets go of the lock, so threads."""

    alone = Lock()

    def turn(loaded: Loaded) -> AbstractContextManager[object]:
        large = not isinstance(loaded, np.ndarray) and loaded.width * loaded.height > _LARGE
        return alone if large else nullcontext()

    def one(position: int) -> _Image | str:
        try:
            loaded = part.load(position)
            with turn(loaded):
                pixels = to_square(loaded, *square)
            return pixels, fingerprint(pixels)
        except Exception as error:  # Pillow raises nearly every kind on a broken file
            return " ".join(str(error).split())[:200] or type(error).__name__

    workers = min(8, available_cores())
    with ThreadPoolExecutor(workers) as pool:
        # Ahead of the writer, so that none waits for it; bounded, so that memory is.
        ahead: deque[Future[_Image | str]] = deque()
        for position in range(len(part)):
            ahead.append(pool.submit(one, position))
            if len(ahead) >= _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
