"""What a gauge says of one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipdrift.records.readings import Reading

if TYPE_CHECKING:
    import pandas as pd


class ModelReading(Reading):
    """All numbers of one model. `undefined`: dotted name of what is null -> why."""

    undefined: dict[str, str]

    def scalars(self) -> dict[str, float]:
        """Every number that is defined, as trackers take it: `clipdrift/<dotted name>` -> value."""
        found = self.numbers().items()
        return {f"clipdrift/{name}": value for name, value in found if value is not None}

    def to_frame(self) -> pd.DataFrame:
        """One row per number: `name`, `block` (from 1; null for a mean), `value`, `reason`."""
        import pandas as pd

        rows: list[tuple[str, int | None, float | None]] = []
        rows += [(name, None, value) for name, value in self.numbers().items()]
        for group in ("levels", "drift"):
            for name, blocks in getattr(self, f"{group}_per_block").items():
                rows += [(f"{group}.{name}", i + 1, value) for i, value in enumerate(blocks)]
        frame = pd.DataFrame(rows, columns=["name", "block", "value"])
        frame["block"] = frame["block"].astype("Int64")
        return frame.assign(reason=frame["name"].map(self.undefined))
