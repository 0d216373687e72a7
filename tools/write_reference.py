"""Write the reference pages of the documentation from the code they describe.

    python tools/write_reference.py          # writes docs/study-file.md and docs/analysis.md
    python tools/write_reference.py site     # writes docs/reference/made/, which `make docs` needs

A test holds the first two to what this prints, so they cannot fall behind. The others are in no
commit: they are made for the site.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from clipdrift.analysis.files import schema
from clipdrift.records import RunRecord
from clipdrift.records.readings import EpochReading, Reading, Result
from clipdrift.records.transfer import Retrieval, TransferReading
from clipdrift.spec.carving import ProbeSpec, SplitSpec
from clipdrift.spec.datasets import DatasetSpec, SplitFiles, TargetSpec, TransferSpec
from clipdrift.spec.method_base import LayersSpec, MethodBase
from clipdrift.spec.methods import (
    AdapterSpec,
    BitFitSpec,
    FullFtSpec,
    LastBlocksSpec,
    LinearProbeSpec,
    LoraSpec,
    LpFtSpec,
    PeftSpec,
    PluginSpec,
    VptSpec,
)
from clipdrift.spec.parts import BackboneSpec, EvaluationSpec, ScheduleSpec, StudySpec
from clipdrift.spec.penalties import (
    AttentionPreservationSpec,
    EntropyFloorSpec,
    FeatureDistillationSpec,
    L2SpSpec,
    PenaltyBase,
    PluginPenaltySpec,
)
from clipdrift.spec.suites import SUITES, SuiteSpec

DOCS = Path(__file__).parents[1] / "docs"
COVERAGE = """
## How often intervals hold the truth

Percent of rows of made-up studies whose interval holds the truth, or whose verdict is wrong, ± the
Monte Carlo error; in brackets the percent of rows that print no interval. Intervals are to hold it
in 95 of 100 studies where no other number stands, verdicts to be wrong in 5 at most. "Over" is
`interval_over`: an interval over seeds is about the images at hand, one over seeds and images about
all images like them. Studies have three methods at four rates with as many validation,
test and transfer images; how they are made is in `benchmarks/simulated`. `selection` and `frontier`
print no interval.

Made by `python benchmarks/coverage.py --write docs/coverage.json`; with `--only` and more studies
for what stood under 93 in the first table, or over 5 as a verdict.
"""
COUNTED = """
{studies} studies a number ({studies_of_runs} where no images are read, a tenth of these for
forecasts): {names}; {cpu_seconds} s of CPU, {machine}, {date}.
"""
SECTIONS: dict[str, type[BaseModel]] = {
    "study": StudySpec,
    "backbone": BackboneSpec,
    "datasets (targets and transfers)": DatasetSpec,
    "files, hub_splits": SplitFiles,
    "targets, further": TargetSpec,
    "transfers, further": TransferSpec,
    "a suite under transfers": SuiteSpec,
    "methods": MethodBase,
    "full_ft": FullFtSpec,
    "lora": LoraSpec,
    "peft": PeftSpec,
    "layers (of lora and peft)": LayersSpec,
    "last_blocks": LastBlocksSpec,
    "linear_probe": LinearProbeSpec,
    "bitfit": BitFitSpec,
    "lp_ft": LpFtSpec,
    "adapter": AdapterSpec,
    "vpt": VptSpec,
    "plugin (method)": PluginSpec,
    "penalties of a method": PenaltyBase,
    "l2_sp": L2SpSpec,
    "feature_distillation": FeatureDistillationSpec,
    "attention_preservation": AttentionPreservationSpec,
    "entropy_floor": EntropyFloorSpec,
    "plugin (penalty)": PluginPenaltySpec,
    "schedule": ScheduleSpec,
    "splits": SplitSpec,
    "probe": ProbeSpec,
    "evaluation": EvaluationSpec,
}
RECORD_SECTIONS: dict[str, type[BaseModel]] = {
    "record": RunRecord,
    "reading": Reading,
    "history, further": EpochReading,
    "result, further": Result,
    "transfer.NAME and target_zero_shot": TransferReading,
    "retrieval of these, test_retrieval": Retrieval,
}
RECORD_HEAD = """# The record of a run

`runs/<run>/record.json`: what one run measured, under which conditions, on what. Everything that
analysis and report say is computed from these files. Undefined is null, and `undefined` says why,
by dotted name. A checksum covers all of it. [What each number means](../../measurements.md).
"""
STUDY_HEAD = """# The study file

YAML; unknown keys are refused and all faults are told at once with their lines. Relative paths are
read against the file's folder. `clipdrift init` writes a commented one; `studies/` has whole ones.
"""
ANALYSIS_HEAD = """# analysis.json

Written by `clipdrift analyze DIR`, together with one CSV file per list in `DIR/tables`. Each list
holds flat rows; metric names are the fields of a record (`test_accuracy`,
`transfer.cifar100.retention_pct`, `drift.cls_entropy_pct`). Undefined is null and `reason` says
why. Backbones are never pooled. `clipdrift.analysis.files.schema()` is the JSON Schema.
"""


def study_page() -> str:
    """docs/study-file.md"""
    return _page(STUDY_HEAD, SECTIONS)


def record_page() -> str:
    """docs/reference/made/record.md"""
    return _page(RECORD_HEAD, RECORD_SECTIONS)


def commands_page() -> str:
    """docs/reference/made/commands.md: what every `--help` says."""
    program = [sys.executable, "-m", "typer", "clipdrift.cli.app", "utils", "docs"]
    told = subprocess.run(
        [*program, "--name", "clipdrift", "--title", "Commands"],
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout


def _page(head: str, sections: dict[str, type[BaseModel]]) -> str:
    parts = [head]
    for title, model in sections.items():
        parts.append(f"\n## {title}\n")
        # A model without words of its own inherits pydantic's, which say nothing here.
        if model.__doc__ and model.__doc__ != BaseModel.__doc__:
            parts.append("\n".join(line.strip() for line in model.__doc__.strip().splitlines()))
        rows = list(_fields(model))
        if rows:
            parts += ["", "| key | value | default | |", "|---|---|---|---|", *rows]
        if model is SuiteSpec:
            parts += ["", *(f"- `{suite}`: {', '.join(names)}" for suite, names in SUITES.items())]
    return "\n".join(parts) + "\n"


def analysis_page() -> str:
    """docs/analysis.md"""
    parts = [ANALYSIS_HEAD]
    for key, part in schema()["properties"].items():
        if part.get("type") != "array":
            continue
        parts += [f"\n## {key}\n", part.get("description", ""), ""]
        columns = part["items"]["properties"]
        parts += ["| field | |", "|---|---|"]
        parts += [
            f"| `{name}` | {_cell(column.get('description', ''))} |"
            for name, column in columns.items()
        ]
    return "\n".join([*parts, *_coverage()]) + "\n"


def _coverage() -> Iterator[str]:
    """The tables that `benchmarks/coverage.py` wrote."""
    yield COVERAGE.rstrip("\n")
    for told in json.loads((DOCS / "coverage.json").read_text(encoding="utf-8")):
        names = ", ".join(told["only"]) or "every question"
        yield COUNTED.format(names=names, **told)
        yield from told["table"]


def _fields(model: type[BaseModel]) -> Iterator[str]:
    inherited = {name for base in model.__mro__[1:] for name in getattr(base, "model_fields", {})}
    for name, info in model.model_fields.items():
        if name in inherited and model.model_fields[name].default == _default_of_base(model, name):
            continue
        yield f"| `{name}` | {_cell(_type(info.annotation))} | {_default(info)} | {_text(info)} |"


def _default_of_base(model: type[BaseModel], name: str) -> Any:
    for base in model.__mro__[1:]:
        if name in getattr(base, "model_fields", {}):
            return base.model_fields[name].default
    return PydanticUndefined


def _type(annotation: Any) -> str:
    """For people: `one of a, b`, `list of number`, `number or nothing`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is tuple:
        return f"list of {len(inner)}: {', '.join(map(_type, inner))}"
    if origin is dict:
        return f"mapping of {_type(inner[0])} to {_type(inner[1])}"
    if origin in (Union, UnionType):
        named = [_type(part) for part in inner if part is not type(None)]
        return " or ".join(dict.fromkeys(named))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", annotation.__name__.removesuffix("Spec")).lower()
    names = {
        Any: "anything",
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
    }
    return names.get(annotation, str(annotation))


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    if info.default_factory or info.default is None or isinstance(info.default, BaseModel):
        return ""
    return f"`{info.default}`" if info.default != "" else ""


def _text(info: FieldInfo) -> str:
    limits = [
        str(rule) for rule in info.metadata if type(rule).__name__ in {"Ge", "Gt", "Le", "Lt"}
    ]
    words = {"Ge(ge=": "at least ", "Gt(gt=": "above ", "Le(le=": "at most ", "Lt(lt=": "below "}
    for start, word in words.items():
        limits = [text.replace(start, word).rstrip(")") for text in limits]
    return _cell("; ".join(filter(None, [info.description or "", ", ".join(limits)])))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


COMMITTED = {"study-file.md": study_page, "analysis.md": analysis_page}
OF_THE_SITE = {
    "reference/made/commands.md": commands_page,
    "reference/made/record.md": record_page,
}

if __name__ == "__main__":
    for name, page in (OF_THE_SITE if sys.argv[1:] == ["site"] else COMMITTED).items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(page(), encoding="utf-8")
