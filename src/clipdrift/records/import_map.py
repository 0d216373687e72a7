"""The map of an import: which column of a table is which field of a record, in which unit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipdrift.errors import Fault, RecordError, brief, did_you_mean, first_faults
from clipdrift.spec.plain_yaml import parse, read_text

STATE = ("status", "diverged")
KEYS = ("backbone", "target", "method", "role", "lr", "seed", *STATE)
REQUIRED = ("target", "method", "lr", "seed")
SCALARS = ("val_accuracy", "test_accuracy")
COSTS = (
    *("parameters_trained", "parameters_total"),
    *("timing.train_seconds", "timing.wall_seconds", "timing.peak_memory_bytes"),
)
TRANSFER_FIELDS = (
    "accuracy",
    "baseline_accuracy",
    "retention_pct",
    "chance_corrected_retention_pct",
    "delta_accuracy_pp",
)
IMAGES, CLASSES, TEST_IMAGES = "n_images", "n_classes", "test_n_images"
EPOCH1 = "epoch1."
FRACTION, PERCENT = "fraction", "percent"
NAME = r"[A-Za-z0-9][A-Za-z0-9._@+-]*"
PATTERNS = (
    *(re.escape(name) for name in (*KEYS, *SCALARS, *COSTS)),
    TEST_IMAGES,
    rf"(epoch1\.)?transfer\.{NAME}\.({'|'.join(TRANSFER_FIELDS)})",
    rf"transfer\.{NAME}\.({IMAGES}|{CLASSES})",
    rf"(drift|levels|extra)\.{NAME}",
    rf"epoch1\.{NAME}",
)
_FIELD = re.compile("|".join(f"({pattern})" for pattern in PATTERNS))
EXAMPLES = (
    *KEYS,
    *SCALARS,
    *COSTS,
    TEST_IMAGES,
    *(f"transfer.<name>.{name}" for name in (*TRANSFER_FIELDS, IMAGES, CLASSES)),
    "drift.<signal>",
    "levels.<signal>",
    "extra.<signal>",
    "epoch1.<signal>",
)
_SHAPE = "Write 'columns: {<column>: <field>}' and 'units: {val_accuracy: fraction}'"


BenchmarkRuns = Mapping[str, Mapping[str, str]]
"""Model -> target, method, role, lr, seed, backbone, baseline; `model` once more."""


@dataclass(frozen=True)
class ImportMap:
    """Columns and constants by field, stated units, and which methods are references.

    benchmark: the runs among the models of CLIP_benchmark, whose columns follow from them.
    reasons: what no row can hold -> why.
    """

    columns: Mapping[str, str]
    constants: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    reference_methods: frozenset[str] = frozenset()
    benchmark: BenchmarkRuns | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def stated_unit(self, name: str) -> str | None:
        """The unit the map states for a field: its own, else that of its group.

        `transfer` speaks of accuracies. `retention_pct` says its unit in its name; only a unit
        stated for that very field overrides it.
        """
        plain = name.removeprefix(EPOCH1)
        places = [name, plain]
        if plain.startswith("transfer.") and plain.endswith("accuracy"):
            places += [plain.rsplit(".", 1)[0], "transfer"]
        return next((self.units[place] for place in places if place in self.units), None)


_RUN, _END = "run_info.train_config", "train_info.metrics"
PEFT = ImportMap(
    columns={
        "run_info.experiment_name": "method",
        f"{_RUN}.model_id": "backbone",
        f"{_RUN}.optimizer_kwargs.lr": "lr",
        f"{_RUN}.seed": "seed",
        "train_info.status": "status",
        f"{_END}.valid accuracy": "val_accuracy",
        f"{_END}.test accuracy": "test_accuracy",
        f"{_END}.forgetting": "extra.forgetting_nats",
        f"{_END}.train loss": "extra.train_loss",
        "train_info.file_size": "extra.file_bytes",
        "train_info.num_trainable_params": "parameters_trained",
        "train_info.num_total_params": "parameters_total",
        "train_info.train_time": "timing.train_seconds",
        "run_info.total_time": "timing.wall_seconds",
        "train_info.accelerator_memory_max": "timing.peak_memory_bytes",
    },
    constants={"target": "MetaMathQA"},
    reasons={
        "transfer": "peft's comparison reads no zero-shot accuracy, so retention is not known; "
        "extra.forgetting_nats is how much its loss on other text rose"
    },
)
"""Of the results of peft's method_comparison (github.com/huggingface/peft), a JSON file a run."""


def implied(header: Sequence[str], mapping: ImportMap) -> dict[str, str]:
    """Columns outside of a map whose names say what they are -> their field.

    >>> implied(["seed", "epoch1_gini_pct", "status"], ImportMap({"seed": "seed"}))
    {'epoch1_gini_pct': 'epoch1.gini_pct', 'status': 'status'}
    """
    found: dict[str, str] = {}
    taken = {*mapping.columns.values(), *mapping.constants}
    for name in header:
        field = re.sub(f"^{EPOCH1[:-1]}_", EPOCH1, name)
        known = field in STATE or (field.startswith(EPOCH1) and _FIELD.fullmatch(field))
        if known and name not in mapping.columns and field not in taken:
            found[name] = field
            taken.add(field)
    return found


def is_count(name: str) -> bool:
    """Whether a field counts images or classes, so that it is whole.

    >>> is_count("test_n_images"), is_count("transfer.pets.n_classes"), is_count("extra.n_images")
    (True, True, False)
    """
    plain = name.removeprefix(EPOCH1)
    of_set = plain.startswith("transfer.") and plain.endswith((f".{IMAGES}", f".{CLASSES}"))
    return of_set or name == TEST_IMAGES or name.startswith("parameters_")


def read_map(path: Path) -> ImportMap:
    """Read and check a map: `columns`, optional `units`, `constants`, `reference_methods`.

    With `clip_benchmark` in the place of `columns` it names the runs among the models of a table
    of CLIP_benchmark.

    Raises:
        RecordError: with every fault: an unknown field (and the nearest known one), a field given
            twice, a required field left out, a unit that is none.
    """
    body = _read(path)
    faults: list[Fault] = []
    known = ("columns", "units", "constants", "reference_methods", "clip_benchmark")
    for key in body:
        if key not in known:
            step = f"Use only {', '.join(known)}"
            faults.append(Fault(f"{path} {key}", "a known key", brief(key), step))
    columns = _texts(body, "columns", path, faults)
    constants = _texts(body, "constants", path, faults)
    units = _texts(body, "units", path, faults)
    references = body.get("reference_methods") or []
    if not isinstance(references, list):
        step = "Write reference_methods: [linear_probe]"
        faults.append(Fault(f"{path} reference_methods", "a list", brief(references), step))
        references = []
    fields = [*columns.values(), *constants]
    benchmark = None
    if "clip_benchmark" in body:
        benchmark = _benchmark(body["clip_benchmark"], path, faults)
        fields += REQUIRED
    faults += first_faults(_field_faults(fields, path), str(path))
    faults += first_faults(_unit_faults(units, fields, path), str(path))
    if faults:
        raise RecordError(faults)
    return ImportMap(columns, constants, units, frozenset(map(str, references)), benchmark)


def _benchmark(body: Any, path: Path, faults: list[Fault]) -> BenchmarkRuns:
    """`baseline` and `runs` of the map; faults are added to `faults`."""
    shape = (
        "Write 'clip_benchmark: {baseline: ViT-B-32 openai, runs: {<model>: {target: pets, ...}}}'"
    )
    runs = body.get("runs") if isinstance(body, dict) else None
    if not isinstance(runs, dict) or not runs or body.keys() - {"runs", "baseline"}:
        got = "no runs: untouched models are none" if isinstance(body, dict) else brief(body)
        faults.append(Fault(f"{path} clip_benchmark", "baseline and runs", got, shape))
        return {}
    found = {}
    for model in runs:
        where = f"clip_benchmark.runs.{model}"
        own = _texts({where: runs[model]}, where, path, faults)
        own = {"baseline": str(body.get("baseline") or ""), "model": str(model), **own}
        own = {"backbone": own["baseline"], "role": "matched", **own}
        lacks = [name for name in (*REQUIRED, "baseline") if not own.get(name)]
        unknown = sorted(own.keys() - {*KEYS, "baseline", "model"} | own.keys() & set(STATE))
        if lacks or unknown:
            rule = "target, method, lr, seed and a baseline; backbone and role if wanted"
            got = f"no {', '.join(lacks)}" if lacks else brief(unknown)
            faults.append(Fault(f"{path} {where}", rule, got, shape))
        found[str(model)] = own
    return found


def _read(path: Path) -> dict[str, Any]:
    read = parse(
        read_text(path, "map", "Check the path", RecordError), str(path), _SHAPE, RecordError
    )
    body = read.value
    if isinstance(body, dict) and "clip_benchmark" in body and "columns" not in body:
        body["columns"] = {}
    if not isinstance(body, dict) or not isinstance(body.get("columns"), dict):
        got = type(body).__name__ if not isinstance(body, dict) else "no 'columns' mapping"
        raise RecordError(Fault(str(path), "a map of columns to fields", got, _SHAPE))
    if read.repeated:
        raise RecordError(read.repeated)
    return body


def _texts(body: dict[str, Any], key: str, path: Path, faults: list[Fault]) -> dict[str, str]:
    """A mapping of texts; other values become faults."""
    found = body.get(key) or {}
    if not isinstance(found, dict):
        faults.append(Fault(f"{path} {key}", "a mapping", type(found).__name__, _SHAPE))
        return {}
    for name, value in found.items():
        if isinstance(value, (dict, list)) or value is None:
            faults.append(Fault(f"{path} {key}.{name}", "a single value", brief(value), _SHAPE))
    return {str(name): str(value) for name, value in found.items()}


def _field_faults(fields: list[str], path: Path) -> Iterator[Fault]:
    for name in dict.fromkeys(fields):
        if not _FIELD.fullmatch(name):
            yield Fault(f"{path} columns", "a known field", brief(name), _nearest(name))
    for name, count in Counter(fields).items():
        if count > 1:
            step = "Map one of them, the others are kept as extra signals"
            yield Fault(f"{path} {name}", "one column per field", f"{count} columns", step)
    for name in REQUIRED:
        if name not in fields:
            step = f"Add '<column>: {name}' to columns, or '{name}: <value>' to constants"
            yield Fault(f"{path} columns", f"a column for {name!r}", "none", step)


def _nearest(name: str) -> str:
    """The nearest field name, with the user's own dataset or signal name in it."""
    middle = name.split(".")[1] if name.count(".") >= 1 else "<name>"
    known = [example.replace("<name>", middle).replace("<signal>", middle) for example in EXAMPLES]
    return did_you_mean(name, known, f"Fields are {', '.join(EXAMPLES)}", cutoff=0.5)


def _unit_faults(units: dict[str, str], fields: list[str], path: Path) -> Iterator[Fault]:
    plain = {name.removeprefix(EPOCH1) for name in fields}
    groups = {name.rsplit(".", 1)[0] for name in plain if name.startswith("transfer.")}
    counts = set(filter(is_count, fields))
    known = sorted({*SCALARS, "transfer", *groups, *fields, *plain} - {*KEYS, *counts})
    for name, unit in units.items():
        if unit not in (FRACTION, PERCENT):
            step = f"Write '{name}: {FRACTION}' or '{name}: {PERCENT}'"
            yield Fault(f"{path} units.{name}", "fraction or percent", brief(unit), step)
        if name not in known:
            step = did_you_mean(name, known, f"Units can be given for {brief(known)}")
            yield Fault(f"{path} units", "a mapped field or 'transfer'", brief(name), step)
