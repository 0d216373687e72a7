"""Transfer sets that a study may do without, where they are not to be had."""

from __future__ import annotations

from collections.abc import Callable

from clipdrift.data.sources import open_dataset
from clipdrift.errors import ClipdriftError, UnavailableError
from clipdrift.spec import StudySpec


def without_missing(
    spec: StudySpec, report: Callable[[str], None] = lambda text: None
) -> StudySpec:
    """The study with the transfer sets of `missing: skip` that are here, and without the others.

    What is left is a study that names its sets one by one: its runs are those of one that never
    named the others. Where none would be left, all stay, and preparing them says why.

    Args:
        report: told of each set that is left out, and why.
    """
    kept, reasons = [], []
    for transfer in spec.transfers:
        if transfer.missing == "skip":
            try:
                open_dataset(transfer)
            except UnavailableError as error:
                reasons.append(f"transfer set {transfer.name} is left out: {error}")
                continue
            except ClipdriftError:
                pass  # it is here, and told with all that is wrong of the others
            transfer = transfer.model_copy(update={"missing": "refuse"})
        kept.append(transfer)
    if not kept or kept == spec.transfers:
        return spec
    for reason in reasons:
        report(reason)
    return spec.model_copy(update={"transfers": kept})
