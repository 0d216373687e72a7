"""Parquet files that are small on disk and large in memory are refused, most by their footer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipdrift.data import parquet
from clipdrift.data.sources import open_dataset
from clipdrift.errors import DataError
from clipdrift.spec.datasets import DatasetSpec

MEASURE = """
import sys
from clipdrift.data.sources import open_dataset
from clipdrift.errors import DataError
from clipdrift.spec.datasets import DatasetSpec
import pyarrow.parquet, PIL.Image
def peak():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) * 1024
before = peak()
try:
    part = open_dataset(DatasetSpec(name="set", files={"train": sys.argv[1]})).parts["train"]
    part.load(0)
    said = "read"
except Exception as error:
    said = str(error)
print(peak() - before, said)
"""


def one_text(path: Path, column: str, rows: int, size: int) -> Path:
    """A table in which every row of one column is the same long text, written once."""
    short = pa.array(["cat", "dog"] * (rows // 2))
    same = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * size])
    columns = {"image": short, "label": short, column: same}
    # Without the schema of Arrow's own it is read as plain text.
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("column", ["image", "label"])
def test_a_text_that_many_rows_share_is_not_unfolded(tmp_path: Path, column: str) -> None:
    """2.5 GB as plain text, in a file of a few kilobytes; the footer knows of 500 kB."""
    path = one_text(tmp_path / "t.parquet", column, rows=5_000, size=500_000)
    assert path.stat().st_size < 53_000
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True
    )
    taken, said = done.stdout.split(" ", 1)
    assert int(taken) < 1_000_000_000, said
    assert f"unpack to at most 256 MB in column {column}, got more." in said


@pytest.mark.parametrize("column", ["image", "label"])
def test_columns_that_unpack_to_far_more_than_they_take_are_refused(
    tmp_path: Path, column: str
) -> None:
    columns = {"image": ["a.png"] * 40, "label": ["a", "b"] * 20, column: ["x" * 10**7] * 40}
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=rf"at most 256 MB in column {column}, got 400 MB\. Write"):
        open_dataset(DatasetSpec(name="set", files={"train": str(path)}))


def test_more_rows_than_are_read_are_refused_by_the_footer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = one_text(tmp_path / "t.parquet", "image", rows=2_000, size=3)
    monkeypatch.setattr(parquet, "MAX_ROWS", 1_999)
    monkeypatch.setattr(parquet, "read_group", None)  # nothing is read
    with pytest.raises(DataError, match="expected at most 1,999 rows, got 2,000"):
        open_dataset(DatasetSpec(name="set", files={"train": str(path)}))


def test_images_that_do_not_shrink_may_be_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "FREE_BYTES", 1_000)
    noise = [np.random.default_rng(i).bytes(5_000) for i in range(4)]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": noise, "label": ["a", "b"] * 2}), path)
    parts = open_dataset(DatasetSpec(name="set", files={"train": str(path)})).parts
    assert len(parts["train"]) + len(parts["test"]) == 4
