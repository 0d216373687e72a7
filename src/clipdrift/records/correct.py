"""Which images of a set a model was right on, one bit an image.

Accuracies are means over a finite sample of images, and two models are read on the same ones. Only
the single answers tell how sure such a mean, or a difference of two, is.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:  # numpy takes longer to load than all else that names the runs of a study
    import numpy as np
    from numpy.typing import NDArray

MAX_IMAGES = 20_000_000


class Correct(BaseModel):
    """Right (1) or wrong (0) for each of `n` images, in the fixed order of their set.

    bits: base64 of the bits, eight a byte, the first image highest (`numpy.packbits`).

    >>> import numpy as np
    >>> Correct.of(np.array([True, False, True])).bits
    'oA=='
    >>> Correct(n=3, bits="oA==").hits.tolist()
    [True, False, True]
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(ge=1, le=MAX_IMAGES)
    bits: str = Field(max_length=MAX_IMAGES // 6)

    @classmethod
    def of(cls, hits: NDArray[np.bool_]) -> Self:
        """From one truth value an image, shape [n]."""
        import numpy as np

        packed = np.packbits(hits.astype(bool))
        return cls(n=len(hits), bits=base64.b64encode(packed.tobytes()).decode())

    @model_validator(mode="after")
    def _whole(self) -> Self:
        try:
            data = base64.b64decode(self.bits, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("bits that are no base64") from None
        if len(data) != (self.n + 7) // 8 or any(self._unpacked(data)[self.n :]):
            raise ValueError(f"bits of other than {self.n} images")
        return self

    @staticmethod
    def _unpacked(data: bytes) -> NDArray[np.bool_]:
        import numpy as np

        return np.unpackbits(np.frombuffer(data, np.uint8)).astype(bool)

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Right or wrong, shape [n]."""
        return self._unpacked(base64.b64decode(self.bits))[: self.n]

    @property
    def accuracy(self) -> float:
        """The fraction that is right."""
        return int(self.hits.sum()) / self.n
