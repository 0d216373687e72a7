"""Tables of runs measured elsewhere, the maps of their columns, and what is computed from them."""

from __future__ import annotations

import json
import lzma
import tempfile
from pathlib import Path

import yaml
from fuzz.strategies import ODD_TEXTS, YAML_SHAPES, edited
from fuzz.target import Target
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from clipdrift import bundle
from clipdrift.analysis.files import to_csv, to_json, write_analysis
from clipdrift.analysis.summary import row_keys
from clipdrift.records import StudyFolder
from clipdrift.records.imported import import_runs

MAP = {
    "columns": {
        "dataset": "target",
        "method": "method",
        "rate": "lr",
        "seed": "seed",
        "acc": "val_accuracy",
        "zs": "transfer.cifar.accuracy",
        "base": "transfer.cifar.baseline_accuracy",
        "entropy": "drift.cls_entropy_pct",
    },
    "units": {"val_accuracy": "percent"},
    "constants": {"backbone": "clip"},
    "reference_methods": ["probe"],
}
HEADER = "dataset,method,rate,seed,acc,zs,base,entropy,note"
ROWS = [
    f"{target},{method},{rate},{seed},{90 + seed / 10 + i},{0.5 + i / 10},0.6,{i}.5,"
    for target in ("a", "b")
    for i, method in enumerate(("full_ft", "lora"))
    for rate in ("1e-5", "1e-4")
    for seed in (1, 2, 3)
]
TABLE = "\n".join([HEADER, *ROWS]) + "\n"


def feed_table(data: bytes, folder: Path) -> None:
    (folder / "runs.csv").write_bytes(data)
    (folder / "map.yaml").write_text(yaml.safe_dump(MAP))
    summary = import_runs(folder / "runs.csv", folder / "map.yaml", folder / "out")
    records, faults = StudyFolder(folder / "out").records()
    assert (len(records), faults) == (summary.n_records, [])


def feed_map(data: bytes, folder: Path) -> None:
    (folder / "runs.csv").write_text(TABLE)
    (folder / "map.yaml").write_bytes(data)
    import_runs(folder / "runs.csv", folder / "map.yaml", folder / "out")


def feed_json(data: bytes, folder: Path) -> None:
    (folder / "run.json").write_bytes(data)
    import_runs(folder / "run.json", None, folder / "out")


def feed_bundle(data: bytes, folder: Path) -> None:
    (folder / "study.tar.xz").write_bytes(data)
    import_runs(folder / "study.tar.xz", None, folder / "out")


def bundle_seeds() -> list[bytes]:
    """A bundle of the table, and what xz holds in it, which is packed again after each edit."""
    with tempfile.TemporaryDirectory() as scratch:
        feed_table(table_seeds()[1], Path(scratch))
        bundle(Path(scratch) / "out", Path(scratch) / "a.tar.xz")
        return [(Path(scratch) / "a.tar.xz").read_bytes()]


@st.composite
def bundles(draw: DrawFn) -> bytes:
    """Good bundles with a few bytes replaced, most of them under the compression."""
    plain = bytearray(lzma.decompress(bundle_seeds()[0]))
    for _ in range(draw(st.integers(0, 4))):
        plain[draw(st.integers(0, len(plain) - 1))] = draw(st.integers(0, 255))
    packed = bytearray(lzma.compress(plain, preset=0))
    if draw(st.integers(0, 3)) == 0:
        packed[draw(st.integers(0, len(packed) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(packed)


def feed_analysis(data: bytes, folder: Path) -> None:
    """The table, imported and analysed; rows that would only be refused are told as such."""
    feed_table(data, folder)
    study = StudyFolder(folder / "out")
    result = write_analysis(study)
    to_json(result)
    for key in row_keys():
        for line in to_csv(key, result[key]).splitlines():
            assert not any(cell.startswith(("=", "@", "+")) for cell in line.split(","))


def table_seeds() -> list[bytes]:
    return [TABLE.encode(), "\n".join([HEADER, *ROWS[:2]]).encode()]


def json_seeds() -> list[bytes]:
    metrics = [{"valid accuracy": 0.5}, {"test accuracy": 0.5, "forgetting": 0.1}]
    rate = {"model_id": "llama", "seed": 0, "optimizer_kwargs": {"lr": 1e-4}}
    run = {"experiment_name": "lora", "total_time": 9.5, "train_config": rate}
    end = {"status": "success", "metrics": metrics, "num_trainable_params": 9}
    return [json.dumps({"run_info": run, "train_info": end}).encode()]


def json_runs() -> SearchStrategy[bytes]:
    return edited([json.loads(json_seeds()[0])]).map(lambda tree: json.dumps(tree).encode())


def map_seeds() -> list[bytes]:
    good = yaml.safe_dump(MAP).encode()
    return [good, *(good + shape for shape in YAML_SHAPES[4:6])]


@st.composite
def tables(draw: DrawFn) -> bytes:
    """Good tables with a few cells replaced and a few rows left out."""
    rows = [line.split(",") for line in draw(st.lists(st.sampled_from(ROWS), max_size=24))]
    for _ in range(draw(st.integers(0, 4)) if rows else 0):
        row = draw(st.sampled_from(rows))
        cell = draw(st.sampled_from(ODD_TEXTS) | st.floats().map(repr) | st.text(max_size=6))
        row[draw(st.integers(0, len(row) - 1))] = f'"{cell}"' if "\n" in cell else cell
    text = "\n".join([HEADER, *(",".join(row) for row in rows)])
    return text.encode("utf-8", "surrogatepass")


@st.composite
def numeric_tables(draw: DrawFn) -> bytes:
    """Tables that are accepted, with numbers of any size, ties and gaps."""
    accuracy = st.sampled_from(["0", "100", "50", "", "1e-300", "99.9999999"]) | st.floats(
        0, 100
    ).map(repr)
    number = st.sampled_from(["0", "", "1e300", "-1e300", "1e-300", "5"]) | st.floats(
        allow_nan=False, allow_infinity=False
    ).map(repr)
    share = st.sampled_from(["0", "1", "", "0.5"]) | st.floats(0, 1).map(repr)
    rate = st.sampled_from(["1e-5", "1e-4", "3e-4", "1e-300", "1e300"])
    lines = []
    for line in draw(st.lists(st.sampled_from(ROWS), min_size=1, max_size=24, unique=True)):
        target, method, own_rate, seed, *_ = line.split(",")
        chosen = draw(rate) if draw(st.integers(0, 5)) == 0 else own_rate
        cells = [draw(accuracy), draw(share), draw(share), draw(number), ""]
        lines.append(",".join([target, method, chosen, seed, *cells]))
    return "\n".join([HEADER, *lines]).encode()


def maps() -> SearchStrategy[bytes]:
    ends = st.sampled_from((*[b""] * 40, *YAML_SHAPES))
    good = edited([MAP]).map(lambda tree: yaml.safe_dump(tree).encode())
    return st.tuples(good, ends).map(b"".join)


TARGETS = [
    Target("imported table", feed_table, table_seeds, tables, examples=60, share=0.8),
    Target("result of peft", feed_json, json_seeds, json_runs, examples=40, share=0.3),
    Target("bundle", feed_bundle, bundle_seeds, bundles, examples=30, share=0.1),
    Target("map of columns", feed_map, map_seeds, maps, examples=60, share=0.8),
    Target(
        "analysis of a table",
        feed_analysis,
        table_seeds,
        numeric_tables,
        examples=4,
        share=0.01,
        coverage_guided=False,
    ),
]
