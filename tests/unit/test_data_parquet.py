"""Parquet files that are small on disk and large in memory are refused, most by their footer."""

from __future__ import annotations

import base64
import subprocess
import sys
import zlib
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


@pytest.mark.slow
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


ENDS_ITS_READER = (
    "c-rk%F>ljA6n?%qj)gL`k<PLu4;j)E5^11Ftq|&RPHBr0iNsQ<%4UbiEou^z6wKIxksrX&k%57sKcPQ>k)Z=Wf`K2vdl"
    "x$@O{6BMBd7DdyLaFF?(-+>+>-tV*Lj6kni!x2kOzRE77rqtgf!v6OT1L&jIVHm8}1g|&ntvI39GA!Wb|kn1Eg`eo3Z6"
    "E-3?ADydKVD%Hgg}!wk#Pn!<^ua7L51tR_s`G|aI4_h})Yob64pjdAy=*AKW3yjWp&{<t4Ry)|gMh~vdI%$x*a?<CDwr"
    "qgt)0$g5nHo;hN(gF?^v(7c_Vqci^Jaww1m!lVe(im)8_Z-6!O3z<>>Nv&sNy9FFYT}D_)7x1#W6EZIWfl`A2DnA)FD5"
    "S7JhT5<>_=UE&)qcrcCi<10kxm=;!3|$Yrh%dcYb+muk;1fUKYez;ZD8%VTyBed2i1OO08=brSHEucslvs?MwEM+Ji`9"
    "Ys*P%NSR14lDkqyvaYtI=SlgDCWkG=Ckk4pA(UBZeN0pe>(km(_~-IEHD+nL_u=TU|8ks?bm$x}g{q=-oVLarWPYN`6{"
    "xX8>o$qR`aLPTa)%B<@@Zwe)1lx`m0l;MEiVoab_cJNv?ztN)0m{v6I$=nekMPApUe-i%W*Jz`>uDo-i_n+U^E&g<@de"
    "O_;@%dKi;Z6s%<z`yfo<E=<5J2{E7Vm4cH;k"
)
"""A table of two rows whose footer counts more levels than its column has (zlib, base 85)."""


def test_a_footer_that_ends_the_process_that_reads_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(zlib.decompress(base64.b85decode(ENDS_ITS_READER)))
    code = "import pyarrow.parquet as pq, sys; pq.read_metadata(sys.argv[1]).row_group(0).column(0)"
    ended = subprocess.run([sys.executable, "-c", code, path], capture_output=True)
    assert ended.returncode != 0  # if pyarrow raises now, `require_footer` has had its day
    with pytest.raises(DataError, match=r"got (a footer that ends the process|.*histogram)"):
        open_dataset(DatasetSpec(name="set", files={"train": str(path)}))
