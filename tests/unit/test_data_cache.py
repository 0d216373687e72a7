"""Prepared images are decoded once, shared safely, hashed by content, and honest about bad ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from clipdrift.cli.caching import cache as show
from clipdrift.data import cache, decoding
from clipdrift.data.cache import default_cache_dir, prepare
from clipdrift.data.cached import cached
from clipdrift.data.decode import Square, to_square
from clipdrift.data.prepared import PreparedPart
from clipdrift.errors import DataError
from clipdrift.spec.datasets import DatasetSpec, TransferSpec

SIZE = 32


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of five noisy images each, of odd sizes."""
    rng = np.random.default_rng(1)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(5):
            pixels = rng.integers(0, 256, (40 + i, 61, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def ready(images: Path, cache_dir: Path, *, size: int = SIZE, **options: Any) -> PreparedPart:
    report = options.pop("report", None)
    filter_ = options.pop("interpolation", "bicubic")
    spec = TransferSpec(name="toy", folder=str(images), **options)
    return prepare(spec, Square(size, filter_), cache_dir=cache_dir, report=report)["test"]


def count_decoding(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one for every image decoded from now on."""
    seen: list[int] = []

    def counted(*args: Any) -> Any:
        seen.append(1)
        return to_square(*args)

    monkeypatch.setattr(decoding, "to_square", counted)
    return seen


def entries(cache_dir: Path) -> list[Path]:
    return sorted(path for path in cache_dir.iterdir() if path.is_dir())


def test_pixels_are_those_of_each_image_in_order(images: Path, cache_dir: Path) -> None:
    part = ready(images, cache_dir, interpolation="bilinear")
    files = sorted(images.glob("*/*.png"))
    expected = np.stack([to_square(Image.open(file), SIZE, "bilinear") for file in files])
    assert np.array_equal(part.pixels, expected)
    assert isinstance(part.pixels, np.memmap)
    assert not part.pixels.flags.writeable
    assert part.labels.tolist() == [0] * 5 + [1] * 5
    assert part.labels.dtype == np.int64
    assert part.class_names == ("cat", "dog")
    assert part.bad_images == ()
    assert len(part) == 10


def test_an_image_is_decoded_once(
    images: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = count_decoding(monkeypatch)
    first = ready(images, cache_dir)
    assert len(decoded) == 10
    again = ready(images, cache_dir)
    assert len(decoded) == 10
    assert np.array_equal(first.pixels, again.pixels)
    assert first.sha256 == again.sha256


@pytest.mark.parametrize("change", ["size", "filter", "edit", "touch", "add", "version"])
def test_what_changes_pixels_is_decoded_anew(
    change: str, images: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(images, cache_dir)
    decoded = count_decoding(monkeypatch)
    file = images / "cat" / "0.png"
    options: dict[str, Any] = {}
    if change == "size":
        options["size"] = 24
    elif change == "filter":
        options["interpolation"] = "bilinear"
    elif change == "edit":
        Image.new("RGB", (50, 50)).save(file)
    elif change == "touch":
        os.utime(file, ns=(1, 1))
    elif change == "add":
        shutil.copy(file, images / "dog" / "more.png")
    else:
        monkeypatch.setattr(cache, "CACHE_VERSION", cache.CACHE_VERSION + 1)
    ready(images, cache_dir, **options)
    assert len(decoded) == (11 if change == "add" else 10)


def test_class_names_change_the_hash_but_cost_no_decoding(
    images: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ready(images, cache_dir)
    decoded = count_decoding(monkeypatch)
    renamed = ready(images, cache_dir, class_names={"cat": "a tabby", "dog": "a hound"})
    assert not decoded
    assert renamed.sha256 != first.sha256


def test_the_hash_is_of_content_not_of_place(images: Path, tmp_path: Path) -> None:
    first = ready(images, tmp_path / "a")
    shutil.copytree(images, tmp_path / "elsewhere")
    moved = ready(tmp_path / "elsewhere", tmp_path / "b")
    assert moved.sha256 == first.sha256
    pixels = np.asarray(Image.open(images / "cat" / "0.png")).copy()
    pixels[20, 30] ^= 255
    Image.fromarray(pixels).save(tmp_path / "elsewhere" / "cat" / "0.png")
    assert ready(tmp_path / "elsewhere", tmp_path / "b").sha256 != first.sha256
    shutil.move(images / "cat" / "4.png", images / "dog" / "a.png")  # same pixels, same order
    relabelled = ready(images, tmp_path / "a")
    assert relabelled.sha256 != first.sha256


def damage(entry: Path, how: str) -> None:
    pixels, described = entry / "pixels.npy", entry / "entry.json"
    content = json.loads(described.read_text())
    if how == "short":
        pixels.write_bytes(pixels.read_bytes()[:-100])
    elif how == "no pixels":
        pixels.unlink()
    elif how == "no description":
        described.unlink()
    elif how == "half a description":
        described.write_text(described.read_text()[:30])
    elif how == "foreign key":
        described.write_text(json.dumps(content | {"key": "0" * 32}))
    elif how == "other shape":
        np.save(pixels, np.zeros((10, SIZE, SIZE, 1), dtype=np.uint8))
    elif how == "other kind":
        np.save(pixels, np.zeros((10, SIZE, SIZE, 3), dtype=np.float32))
    elif how == "a flipped bit":
        data = bytearray(pixels.read_bytes())
        data[-1000] ^= 16
        pixels.write_bytes(data)
    elif how == "edited description":
        described.write_text(json.dumps(content | {"bad": {"3": "x"}, "count": 9}))
        np.save(pixels, np.load(pixels)[1:])
    elif how == "wrong bad list":
        described.write_text(json.dumps(content | {"bad": {"11": "x"}, "count": 9}))
    else:
        shutil.rmtree(entry)
        entry.write_text("a file in its place")


@pytest.mark.parametrize(
    "how",
    [
        "short",
        "no pixels",
        "no description",
        "half a description",
        "foreign key",
        "other shape",
        "other kind",
        "a flipped bit",
        "edited description",
        "wrong bad list",
        "a file",
    ],
)
def test_a_torn_or_foreign_entry_is_redone(how: str, images: Path, cache_dir: Path) -> None:
    first = ready(images, cache_dir)
    expected, digest = np.array(first.pixels), first.sha256
    del first
    damage(entries(cache_dir)[0], how)
    again = ready(images, cache_dir)
    assert np.array_equal(again.pixels, expected)
    assert again.sha256 == digest
    assert len(entries(cache_dir)) == 1


def test_damage_is_told(images: Path, cache_dir: Path) -> None:
    ready(images, cache_dir)
    damage(entries(cache_dir)[0], "a flipped bit")
    lines: list[str] = []
    ready(images, cache_dir, report=lines.append)
    assert lines == ["toy (test): prepared images do not match their checksum; preparing them anew"]


def test_what_a_crash_left_is_cleared(images: Path, cache_dir: Path) -> None:
    key = entries_key(images, cache_dir)
    shutil.rmtree(cache_dir / key)
    (cache_dir / f"{key}.unfinished").mkdir()
    (cache_dir / f"{key}.unfinished" / "pixels.npy").write_bytes(b"half")
    ready(images, cache_dir)
    assert [path.name for path in entries(cache_dir)] == [key]


def entries_key(images: Path, cache_dir: Path) -> str:
    ready(images, cache_dir)
    return entries(cache_dir)[0].name


def break_images(images: Path, count: int) -> None:
    """Cut the first images of class cat short, as a stopped download would."""
    for i in range(count):
        file = images / "cat" / f"{i}.png"
        file.write_bytes(file.read_bytes()[:2000])


def test_unreadable_images_are_named_and_counted(images: Path, cache_dir: Path) -> None:
    break_images(images, 3)
    (images / "dog" / "0.png").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError) as raised:
        ready(images, cache_dir, max_bad_images=3)
    message = str(raised.value)
    cats = ", ".join(os.path.join("cat", f"{number}.png") for number in range(3))
    dog = os.path.join("dog", "0.png")
    assert message.startswith(
        f"toy (test): expected at most 3 unreadable images, got 4 of 10: {cats}: image file is "
        f"truncated; {dog}: not an image of a known format. Repair"
    )
    assert message.endswith("or set max_bad_images: 4 to leave them out.")
    assert entries(cache_dir) == []


def test_of_images_with_one_fault_three_are_named_and_the_others_counted(
    images: Path, cache_dir: Path
) -> None:
    break_images(images, 5)
    with pytest.raises(DataError) as raised:
        ready(images, cache_dir)
    third = os.path.join("cat", "2.png")
    assert f"got 5 of 10: {os.path.join('cat', '0.png')}, " in str(raised.value)
    assert f", {third} and 2 more: image file is truncated. " in str(raised.value)


def test_tolerated_bad_images_are_left_out_and_listed(images: Path, cache_dir: Path) -> None:
    whole = ready(images, cache_dir)
    kept = np.array(whole.pixels)[2:]
    break_images(images, 2)
    for _ in range(2):  # decoded, then from the cache
        part = ready(images, cache_dir, max_bad_images=2)
        assert np.array_equal(part.pixels, kept)
        assert part.labels.tolist() == [0] * 3 + [1] * 5
        assert [line.split(":")[0] for line in part.bad_images] == [
            os.path.join("cat", "0.png"),
            os.path.join("cat", "1.png"),
        ]
    with pytest.raises(DataError, match="at most 1 unreadable images, got 2 of 10"):
        ready(images, cache_dir, max_bad_images=1)


def test_not_one_readable_image_is_a_fault_whatever_is_tolerated(
    images: Path, cache_dir: Path
) -> None:
    for file in images.glob("*/*.png"):
        file.write_bytes(b"x")
    with pytest.raises(DataError, match="not one image can be read"):
        ready(images, cache_dir, max_bad_images=100)


def test_faults_of_both_parts_come_together(images: Path, cache_dir: Path) -> None:
    break_images(images, 5)
    both = images.parent / "both"
    for part in ("train", "test"):
        shutil.copytree(images, both / part)
    with pytest.raises(DataError) as raised:
        prepare(
            DatasetSpec(name="toy", folder=str(both)),
            Square(SIZE, "bicubic"),
            cache_dir=cache_dir,
        )
    assert [fault.where for fault in raised.value.faults] == ["toy (train)", "toy (test)"]


def test_progress_and_notes_are_told(
    images: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "REPORT_EVERY", 4)
    (images / "notes.txt").write_text("x")
    lines: list[str] = []
    ready(images, cache_dir, report=lines.append)
    note = "toy: 1 files are left out (1 .txt)"
    assert lines == [note, "toy (test): 4 / 10 images", "toy (test): 8 / 10 images"]


def test_a_full_disk_is_told_before_anything_is_written(
    images: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(images)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"0\.0 GB free in the cache folder .*CLIPDRIFT_CACHE"):
        ready(images, cache_dir)
    assert entries(cache_dir) == []


def test_a_cache_that_cannot_be_made_is_told(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cache folder: expected a folder to write to"):
        ready(images, tmp_path / "file" / "cache")


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLIPDRIFT_CACHE", str(tmp_path / "c"))
    assert default_cache_dir() == tmp_path / "c"
    monkeypatch.delenv("CLIPDRIFT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "clipdrift"


WORKER = """
import sys, time
from pathlib import Path
import clipdrift.data.decoding as decoding
from clipdrift.data.cache import prepare
from clipdrift.data.decode import Square
from clipdrift.spec.datasets import TransferSpec

folder, cache, go = sys.argv[1:]
to_square, decoded = decoding.to_square, []
def slow(*args):
    decoded.append(1)
    time.sleep(0.02)
    return to_square(*args)
decoding.to_square = slow
print("ready", flush=True)
while not Path(go).exists():
    time.sleep(0.005)
part = prepare(TransferSpec(name="toy", folder=folder), Square(32, "bicubic"),
               cache_dir=Path(cache))["test"]
print(len(decoded), part.sha256, int(part.pixels.sum(dtype="int64")), flush=True)
"""


def start_worker(images: Path, cache_dir: Path, go: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(images), str(cache_dir), str(go)],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_processes_that_prepare_at_once_decode_once_and_agree(
    images: Path, cache_dir: Path, tmp_path: Path
) -> None:
    workers = [start_worker(images, cache_dir, tmp_path / "go") for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    lines = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert sorted(int(line[0]) for line in lines) == [0, 0, 10]
    assert len({tuple(line[1:]) for line in lines}) == 1
    whole = ready(images, cache_dir)
    assert lines[0][1:] == [whole.sha256, str(int(whole.pixels.sum(dtype=np.int64)))]


def test_a_killed_process_leaves_nothing_in_the_way(
    images: Path, cache_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "go").touch()
    worker = start_worker(images, cache_dir, tmp_path / "go")
    until = time.monotonic() + 60
    while not list(cache_dir.glob("*.unfinished/pixels.npy")) and time.monotonic() < until:
        time.sleep(0.005)
    worker.kill()
    worker.wait()
    assert [path.name.split(".")[1] for path in entries(cache_dir)] == ["unfinished"]
    assert len(ready(images, cache_dir)) == 10
    assert len(entries(cache_dir)) == 1
    assert entries(cache_dir)[0].suffix == ""


def test_the_cache_is_shown_and_cleared_by_last_use_and_nothing_else_in_its_folder(
    images: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready(images, cache_dir)
    ready(images, cache_dir, size=16)
    (large, small) = sorted(cached(cache_dir), key=lambda entry: -entry.size_bytes)
    assert (large.dataset, large.images) == ("toy (test)", 10)
    assert large.size_bytes > 10 * SIZE * SIZE * 3 > small.size_bytes
    assert large.days < 0.1
    (cache_dir / "mine").mkdir()
    (cache_dir / ("a" * 32)).mkdir()  # named like an entry, and not one
    (cache_dir / ("b" * 32)).symlink_to(images)
    (cache_dir / f"{'c' * 32}.unfinished").mkdir()
    for entry, days in ((large, 40), (small, 10)):
        before = time.time() - days * 86_400
        for path in (*entry.path.iterdir(), entry.path):
            os.utime(path, (before, before))
    assert [round(entry.days) for entry in cached(cache_dir)] == [0, 10, 40]
    ready(images, cache_dir)  # a use of the large one
    capsys.readouterr()
    show(cache=cache_dir, older_than=5)
    assert "1 parts of datasets and models" in capsys.readouterr().out
    assert large.path.exists()
    assert not small.path.exists()
    with FileLock(cache_dir / f"{large.path.name}.lock"):
        show(cache=cache_dir, clear=True)  # another process prepares it
    assert large.path.exists()
    show(cache=cache_dir)
    assert "toy (test)" in capsys.readouterr().out
    show(cache=cache_dir, clear=True, json_=True)
    told = json.loads(capsys.readouterr().out)
    assert [entry["path"] for entry in told["entries"]] == [str(large.path)]
    assert told["bytes"] == large.size_bytes
    assert sorted(path.name for path in cache_dir.iterdir() if not path.suffix) == [
        "a" * 32,
        "b" * 32,
        "mine",
    ]
    assert (images / "cat" / "0.png").exists()
    assert cached(cache_dir / "nowhere") == []


def test_a_user_without_a_home_is_asked_for_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number: no HOME, and no entry in the passwords."""
    for name in ("HOME", "CLIPDRIFT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 2)
    with pytest.raises(DataError) as refused:
        default_cache_dir()
    assert str(refused.value) == (
        "--cache: expected a place for prepared images, got no HOME, and a user that this system "
        "does not know. Give --cache or set CLIPDRIFT_CACHE to a folder that can be written."
    )
    monkeypatch.setenv("CLIPDRIFT_CACHE", "/elsewhere")
    assert default_cache_dir() == Path("/elsewhere")
