"""What fuzzing found, each kept as one test: small files that asked for much or broke a reader."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz.images import encoded
from PIL import Image
from report_study import study_folder
from small_models import EMBEDDED, write_random_clip
from small_records import record, write_body
from small_study import study

from clipdrift.backbone import load_backbone
from clipdrift.backbone.sizes import size_faults
from clipdrift.data.cache import prepare
from clipdrift.data.decode import MAX_PIXELS, Square
from clipdrift.data.sources import open_dataset
from clipdrift.errors import MAX_PART, BackboneError, DataError, Fault, RecordError, SpecError
from clipdrift.methods.weights_file import load_tensors
from clipdrift.reading.sealed import load_sealed
from clipdrift.records import RunRecord, StudyFolder, atomic_write, read_record
from clipdrift.records.after import read_after
from clipdrift.records.import_table import LARGEST, Cell, _parse
from clipdrift.records.located import read_located
from clipdrift.records.race_log import read_race
from clipdrift.report import audit_report
from clipdrift.report.attention import attention_images
from clipdrift.report.read import read_study
from clipdrift.run.progress import PROGRESS_FILE, read_progress
from clipdrift.spec.datasets import DatasetSpec
from clipdrift.spec.parts import BackboneSpec

MEASURE = """
import sys
from clipdrift.data.decode import open_image, to_square
def peak():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) * 1024
before = peak()
pixels = to_square(open_image(sys.stdin.buffer.read()), 28, "bicubic")
print(pixels.shape, peak() - before)
"""


def png_of_one_colour(side: int, colour: int, channels: int) -> bytes:
    """A complete PNG of zeros, a thousandth of what it takes decoded."""
    packer = zlib.compressobj(1)
    row = b"\0" * (1 + side * channels)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.slow
def test_the_largest_image_that_is_decoded_takes_less_than_a_gigabyte() -> None:
    """Grey with alpha, which took 23 bytes a pixel before it was laid on white strip by strip."""
    data = png_of_one_colour(int(MAX_PIXELS**0.5), 4, 2)
    assert len(data) < 2_000_000
    done = subprocess.run([sys.executable, "-c", MEASURE], input=data, capture_output=True)
    shape, taken = done.stdout.decode().rsplit(" ", 1)
    assert shape == "(28, 28, 3)"
    assert int(taken) < 1_000_000_000


def test_a_fault_is_one_line_that_a_terminal_only_prints() -> None:
    fault = Fault("a\nb", "c", "\x1b[31mred\x07 \ud800", "d")
    assert str(fault) == r"a\nb: expected c, got \x1b[31mred\x07 \ud800. d."
    assert len(str(Fault("a", "b", "x" * 10**6, "c"))) < MAX_PART + 100


def test_a_study_of_more_runs_than_can_be_listed_is_refused() -> None:
    rates = [round(1e-6 * i, 6) for i in range(1, 201)]
    with pytest.raises(SpecError, match=r"at most 100,000 runs in all, got 120,000"):
        study(seeds=list(range(300)), learning_rates=rates)


def test_numbers_that_no_measurement_gives_are_undefined() -> None:
    assert _parse("1e101") == Cell(None, "beyond 1e+100 in the imported table")
    assert _parse("-1e101") == Cell(None, "beyond 1e+100 in the imported table")
    assert _parse("1e100") == Cell(LARGEST)


@pytest.mark.parametrize("text", ["inf", "NaN", "0.5", "1"])
def test_text_in_the_place_of_a_number_is_no_record(tmp_path: Path, text: str) -> None:
    body = json.loads(record().to_json())
    body["result"]["test_accuracy"] = text
    write_body(body, tmp_path / "record.json", resealed=True)
    with pytest.raises(RecordError, match=r"result\.test_accuracy: Input should be a valid number"):
        read_record(tmp_path / "record.json")


def test_pipes_among_the_files_of_a_study_are_not_waited_for(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.create()
    readers: dict[Path, Callable[[], object]] = {
        folder.plan_path: folder.planned,
        folder.race_path: lambda: read_race(folder),
        tmp_path / "record.json": lambda: read_record(tmp_path / "record.json"),
        tmp_path / "after.json": lambda: read_after(tmp_path / "after.json"),
        tmp_path / "edits.json": lambda: read_located(tmp_path / "edits.json"),
        folder.analysis_path: lambda: read_study(folder),
        folder.report_path: lambda: audit_report(folder),
        tmp_path / "head.safetensors": lambda: load_tensors(tmp_path / "head.safetensors"),
    }
    for path, read in readers.items():
        os.mkfifo(path)
        with pytest.raises(RecordError, match=path.name):
            read()
        path.unlink()
    os.mkfifo(folder.plan_path)
    assert load_sealed(folder.plan_path) is None
    os.mkfifo(tmp_path / PROGRESS_FILE)
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize(
    "name", ["../elsewhere", "..", "/etc", "a/b", "", "a\0b", "x" * 300, "a\nb"]
)
def test_a_plan_names_folders_of_its_own_study_only(tmp_path: Path, name: str) -> None:
    folder = StudyFolder(tmp_path / "study")
    folder.create()
    outside = record(run_id="elsewhere")
    atomic_write(tmp_path / "study" / "elsewhere" / "record.json", outside.to_json())
    folder.write_run_ids({name: outside.identity})
    with pytest.raises(RecordError, match=r"the study's plan, got a damaged file"):
        folder.records()


def test_a_record_chooses_no_pictures_outside_of_its_study(
    tmp_path: Path, make_records: Callable[..., list[RunRecord]]
) -> None:
    records = make_records(targets=("a",), rates=(1e-5,), seeds=(1,))
    folder = study_folder(tmp_path / "study", records)
    escaping = records[0].model_copy(update={"run_id": "../../private"})
    atomic_write(folder.record_path("a"), escaping.to_json())
    found, (fault,) = folder.records()
    assert {one.run_id for one in found} == {one.run_id for one in records}
    assert fault.got == "that of ../../private"
    private = tmp_path / "private" / "attention" / "mine.png"
    private.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(private)
    linked = folder.run_path(records[0].run_id) / "attention" / "linked.png"
    linked.parent.mkdir()
    linked.symlink_to(private)
    assert attention_images(read_study(folder))[0] == []


def test_a_path_with_a_nul_is_an_unreadable_image(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "set.csv").write_bytes(b"image,label\na.png,x\na\0.png,y\na.png,y\na.png,x\n")
    with pytest.raises(DataError, match=r"at most 0 unreadable .*no such file or directory"):
        prepared(tmp_path, "set.csv")


def test_a_parquet_file_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    cells = {"image": [encoded("PNG", "RGB")] * 4, "label": ["cat", "dog"] * 2}
    pq.write_table(pa.table(cells), tmp_path / "set.parquet", compression="none")
    whole = bytearray((tmp_path / "set.parquet").read_bytes())
    place = whole.index(b"cat") - 30
    whole[place : place + 60] = b"\xff" * 60
    (tmp_path / "set.parquet").write_bytes(whole)
    with pytest.raises(DataError, match=r"set\.files\.train: expected a Parquet file"):
        prepared(tmp_path, "set.parquet")


def prepared(folder: Path, name: str) -> None:
    spec = DatasetSpec(name="set", files={"train": str(folder / name)})
    prepare(spec, Square(16, "bicubic"), cache_dir=folder / "cache")


@pytest.mark.parametrize(
    ("part", "key", "value", "text"),
    [
        ("vision_config", "hidden_size", 1_000_000, "the sizes of its own weights"),
        ("vision_config", "num_hidden_layers", 10**9, "the sizes of its own weights"),
        ("text_config", "vocab_size", 10**12, "the sizes of its own weights"),
        ("vision_config", "image_size", 10**6, "the sizes of its own weights"),
        ("text_config", "hidden_size", -1, "a whole number above 0, got -1"),
        ("vision_config", "patch_size", 0, "a whole number above 0, got 0"),
        ("vision_config", "image_size", [28, 28], "a whole number above 0"),
        ("vision_config", "num_attention_heads", "4", "a whole number above 0, got '4'"),
    ],
)
def test_a_configuration_cannot_ask_for_more_than_its_weights_hold(
    tmp_path: Path, part: str, key: str, value: object, text: str
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(EMBEDDED, folder)
    config = json.loads((folder / "config.json").read_text())
    assert size_faults(config, folder, "x") == []
    config[part][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match=text):
        load_backbone(BackboneSpec(id=str(folder)))


def test_json_nested_without_end_is_a_damaged_file(tmp_path: Path) -> None:
    deep = "[" * 100_000
    folder = StudyFolder(tmp_path)
    atomic_write(folder.plan_path, deep)
    with pytest.raises(RecordError, match="damaged file"):
        folder.planned()
    shutil.copytree(EMBEDDED, tmp_path / "clip")
    (tmp_path / "clip" / "config.json").write_text(deep)
    with pytest.raises(BackboneError, match=r"readable config\.json"):
        load_backbone(BackboneSpec(id=str(tmp_path / "clip")))


@pytest.mark.parametrize("goal", ["x" * 5000, "2.png", "nowhere/3.png"])
def test_links_that_lead_nowhere_are_unreadable_images(tmp_path: Path, goal: str) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(encoded("PNG", "RGB"))
    (tmp_path / "set" / "dog" / "2.png").symlink_to(goal[:4000])
    spec = DatasetSpec(name="set", folder=str(tmp_path / "set"))
    with pytest.raises(DataError, match=r"at most 0 unreadable .* dog/2\.png"):
        prepare(spec, Square(16, "bicubic"), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_names_that_no_file_system_has_are_not_there(tmp_path: Path, name: str) -> None:
    for source in ({"folder": name}, {"files": {"train": f"{name}.csv"}}):
        with pytest.raises(DataError, match=r"which (does not exist|is not there)"):
            open_dataset(DatasetSpec(name="set", **source))
    with pytest.raises(BackboneError):
        load_backbone(BackboneSpec(id=f"./{name}"))


@pytest.mark.parametrize("header", [b"{'a': [[[[", b"{'descr': (" + b"[" * 60, b"\xff" * 60])
def test_a_cache_whose_header_cannot_be_parsed_is_made_again(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG", "RGB"))
    (tmp_path / "set.csv").write_text("image,label\na.png,x\na.png,y\na.png,x\na.png,y\n")
    prepared(tmp_path, "set.csv")
    for path in (tmp_path / "cache").rglob("pixels.npy"):
        path.write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.ljust(118) + b"\0" * 800)
    prepared(tmp_path, "set.csv")


def test_a_tokenizer_of_another_model_is_refused_when_it_is_used(tmp_path: Path) -> None:
    folder = write_random_clip(tmp_path / "clip")  # of exactly the tokens that its tokenizer has
    path = folder / "tokenizer_config.json"
    own = json.loads(path.read_text())
    path.write_text(json.dumps({**own, "eos_token": " "}))  # a new token, found in every prompt
    backbone = load_backbone(BackboneSpec(id=str(folder)))
    size = backbone.model.config.text_config.vocab_size
    with pytest.raises(BackboneError, match=rf"token ids from 0 to {size - 1}, got ids up to"):
        backbone.text_features([["a photo of a cat"], ["a dog"]])


def test_a_tokenizer_that_fails_on_a_prompt_is_refused_when_it_is_used(tmp_path: Path) -> None:
    folder = write_random_clip(tmp_path / "clip")
    path = folder / "tokenizer_config.json"
    own = json.loads(path.read_text())
    kept = {key: value for key, value in own.items() if key != "tokenizer_class"}
    path.write_text(json.dumps({**kept, "unk_token": "<|onk|>"}))
    backbone = load_backbone(BackboneSpec(id=str(folder)))
    backbone.tokenizer.backend_tokenizer.model.unk_token = "<|onk|>"
    with pytest.raises(BackboneError, match="expected a tokenizer that reads class prompts, got"):
        backbone.text_features([["\u4f60\u597d"]])


def test_a_tokenizer_whose_rust_code_panics_is_refused_when_it_is_used(tmp_path: Path) -> None:
    folder = write_random_clip(tmp_path / "clip")
    path = folder / "tokenizer.json"
    own = json.loads(path.read_text())
    own["post_processor"]["single"][0]["SpecialToken"]["id"] = "=1+1"  # a token it has not
    path.write_text(json.dumps(own))
    backbone = load_backbone(BackboneSpec(id=str(folder)))
    with pytest.raises(BaseException, match="no entry found") as panic:
        backbone.tokenizer(["a dog"])
    assert not isinstance(panic.value, Exception)
    with pytest.raises(BackboneError, match="expected a tokenizer that reads class prompts, got"):
        backbone.text_features([["a dog"]])
    with (
        pytest.raises(KeyboardInterrupt),
        patch.object(type(backbone.tokenizer), "__call__", side_effect=KeyboardInterrupt),
    ):
        backbone.text_features([["a dog"]])
