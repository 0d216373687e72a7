"""Files that would run their maker's code if they were unpickled, in every place one can name."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_models import EMBEDDED, mini_clip
from small_records import record
from synthetic_records import synthetic_records

from clipdrift.analysis.files import write_analysis
from clipdrift.analysis.questions.probe_sensitivity import FILE_NAME
from clipdrift.backbone import load_backbone
from clipdrift.checkpoint.load import load_checkpoint
from clipdrift.data.cache import prepare
from clipdrift.data.decode import Square
from clipdrift.errors import BackboneError, ClipdriftError, DataError, RecordError
from clipdrift.finished.evaluate import finished_run
from clipdrift.methods.weights_file import load_tensors
from clipdrift.records import StudyFolder, atomic_write
from clipdrift.spec import load_spec
from clipdrift.spec.datasets import DatasetSpec
from clipdrift.spec.parts import BackboneSpec


class Payload:
    """Unpickled, it makes a file: proof that code of the file's maker has run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "the-payload-has-run"


def plain_pickle(marker: Path) -> bytes:
    return pickle.dumps(Payload(marker))


def torch_file(marker: Path) -> bytes:
    """A zip as torch.save writes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", plain_pickle(marker))
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def object_array(marker: Path) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    return out.getvalue()


def object_archive(marker: Path) -> bytes:
    out = io.BytesIO()
    np.savez(out, pixels=np.array([Payload(marker)], dtype=object))
    return out.getvalue()


POISONS: dict[str, Callable[[Path], bytes]] = {
    "pickle": plain_pickle,
    "torch": torch_file,
    "npy": object_array,
    "npz": object_archive,
}
poisons = pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)


def refused(marker: Path, kind: type[ClipdriftError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert not marker.exists()
    return str(caught.value)


def test_the_payload_works(marker: Path) -> None:
    """Without this, no test below could fail."""
    import torch

    for read in (
        lambda: pickle.loads(plain_pickle(marker)),
        lambda: torch.load(io.BytesIO(torch_file(marker)), weights_only=False),
        lambda: np.load(io.BytesIO(object_array(marker)), allow_pickle=True),
        lambda: np.load(io.BytesIO(object_archive(marker)), allow_pickle=True)["pixels"],
    ):
        read()
        assert marker.exists()
        marker.unlink()


def clip_folder(folder: Path, *leave_out: str) -> Path:
    shutil.copytree(EMBEDDED, folder, ignore=shutil.ignore_patterns(*leave_out))
    return folder


@poisons
@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.ckpt", "model.safetensors"]
)
def test_weights_of_a_backbone(
    tmp_path: Path, marker: Path, poison: Callable[[Path], bytes], name: str
) -> None:
    folder = clip_folder(tmp_path / "clip", "model.safetensors")
    (folder / name).write_bytes(poison(marker))
    refused(marker, BackboneError, lambda: load_backbone(BackboneSpec(id=str(folder))))
    refused(marker, ClipdriftError, lambda: load_checkpoint(folder, mini_clip()))


@poisons
def test_pickles_beside_good_weights_are_left_alone(
    tmp_path: Path, marker: Path, poison: Callable[[Path], bytes]
) -> None:
    folder = clip_folder(tmp_path / "clip")
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "extra.npy"):
        (folder / name).write_bytes(poison(marker))
    assert load_backbone(BackboneSpec(id=str(folder))).image_size == mini_clip().image_size
    assert not marker.exists()


@poisons
@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_weights_of_an_adapter(
    tmp_path: Path, marker: Path, poison: Callable[[Path], bytes], name: str
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "modules_to_save": None}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / name).write_bytes(poison(marker))
    refused(marker, ClipdriftError, lambda: load_checkpoint(folder, mini_clip()))


@poisons
def test_a_file_of_weights_alone(
    tmp_path: Path, marker: Path, poison: Callable[[Path], bytes]
) -> None:
    for ending in ("bin", "pt", "pth", "ckpt", "pkl", "npy", "npz"):
        path = tmp_path / f"weights.{ending}"
        path.write_bytes(poison(marker))
        refused(marker, ClipdriftError, lambda path=path: load_checkpoint(path, mini_clip()))
        named = BackboneSpec(id=str(path), model="ViT-B-32")
        refused(marker, BackboneError, lambda named=named: load_backbone(named))


@poisons
@pytest.mark.parametrize("name", ["data.parquet", "data.csv", "data.npy", "data.pkl", "data.npz"])
def test_tables_of_images(
    tmp_path: Path, marker: Path, poison: Callable[[Path], bytes], name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(poison(marker))
    spec = DatasetSpec(name="set", files={"train": str(path)})
    refused(marker, DataError, lambda: prepared(spec, tmp_path))


@poisons
def test_images_in_folders_and_in_tables(
    tmp_path: Path, marker: Path, poison: Callable[[Path], bytes]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("cat/1.png", "cat/2.jpg", "dog/1.tiff", "dog/2.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(poison(marker))
    spec = DatasetSpec(name="set", folder=str(tmp_path / "set"), max_bad_images=9)
    assert "not one image can be read" in refused(
        marker, DataError, lambda: prepared(spec, tmp_path)
    )
    cells = [poison(marker)] * 4
    table = pa.table({"image": cells, "label": ["cat", "dog"] * 2})
    # Metadata that pandas or others might read as objects.
    table = table.replace_schema_metadata({b"pandas": poison(marker), b"huggingface": cells[0]})
    pq.write_table(table, tmp_path / "set.parquet")
    spec = DatasetSpec(name="set", files={"train": str(tmp_path / "set.parquet")})
    refused(marker, DataError, lambda: prepared(spec, tmp_path))


def prepared(spec: DatasetSpec, folder: Path) -> Any:
    return prepare(spec, Square(16, "bicubic"), cache_dir=folder / "cache")


@poisons
def test_the_cache_of_pixels(tmp_path: Path, marker: Path, poison: Callable[[Path], bytes]) -> None:
    for i, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (60 * i, 0, 0)).save(tmp_path / "set" / name)
    spec = DatasetSpec(name="set", folder=str(tmp_path / "set"))
    before = prepared(spec, tmp_path)
    files = [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".npy", ".json")]
    assert files
    for path in files:
        path.write_bytes(poison(marker))
    after = prepared(spec, tmp_path)
    assert not marker.exists()
    for part in before:
        assert after[part].sha256 == before[part].sha256


@poisons
def test_every_file_of_a_study_folder(
    tmp_path: Path, marker: Path, poison: Callable[[Path], bytes]
) -> None:
    folder = StudyFolder(tmp_path / "study")
    folder.create()
    made = synthetic_records(rates=(1e-5,), seeds=(1, 2))
    for one in made:
        atomic_write(folder.record_path(one.run_id), one.to_json())
        atomic_write(folder.run_path(one.run_id) / FILE_NAME, poison(marker))
        atomic_write(folder.run_path(one.run_id) / "head.safetensors", poison(marker))
    atomic_write(folder.record_path("poisoned"), poison(marker))
    result = write_analysis(folder)
    assert not marker.exists()
    assert result["generated_from"]["n_runs_used"] == len(made)
    unreadable = [row for row in result["warnings"] if row["kind"] == "unreadable_record"]
    assert any("poisoned" in row["detail"] for row in unreadable)
    head = folder.run_path(made[0].run_id) / "head.safetensors"
    refused(marker, RecordError, lambda: load_tensors(head))
    refused(marker, RecordError, lambda: finished_run(folder.run_path("poisoned")))
    for path in (folder.spec_path, folder.plan_path):
        atomic_write(path, poison(marker))
        refused(marker, ClipdriftError, lambda: write_analysis(folder))


@poisons
def test_a_study_file_and_a_record(
    tmp_path: Path, marker: Path, poison: Callable[[Path], bytes]
) -> None:
    (tmp_path / "study.yaml").write_bytes(poison(marker))
    refused(marker, ClipdriftError, lambda: load_spec(tmp_path / "study.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{marker}]]",
        "name: !!python/object/apply:os.system ['touch {marker}']",
        "name: !!python/name:os.system",
        "name: !!python/object/new:subprocess.Popen [[touch, {marker}]]",
    ],
)
def test_yaml_that_names_python_objects(tmp_path: Path, marker: Path, text: str) -> None:
    from clipdrift.records.import_map import read_map

    path = tmp_path / "study.yaml"
    path.write_text(text.format(marker=marker))
    refused(marker, ClipdriftError, lambda: load_spec(path))
    refused(marker, ClipdriftError, lambda: read_map(path))


CODE = "from pathlib import Path\nPath({marker!r}).touch()\nclass Own: pass\n"


def test_code_beside_a_model_is_never_run(tmp_path: Path, marker: Path) -> None:
    """A configuration may ask for classes of its own folder; nobody follows it."""
    folder = clip_folder(tmp_path / "clip")
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    own = {"AutoConfig": "own.Own", "AutoModel": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        content = json.loads((folder / name).read_text())
        content |= {"auto_map": own, "trust_remote_code": True}
        (folder / name).write_text(json.dumps(content))
    loaded = load_backbone(BackboneSpec(id=str(folder)))
    assert type(loaded.model).__module__.startswith("transformers.")
    assert type(loaded.tokenizer).__module__.startswith("transformers.")
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["OwnTokenizer", None])
def test_a_tokenizer_that_only_exists_as_code_is_refused_at_once(
    tmp_path: Path, marker: Path, kind: str | None
) -> None:
    """Not asked about either: a question would wait for an answer that no batch job gives."""
    folder = clip_folder(tmp_path / "clip", "tokenizer_config.json")
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    own = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": kind}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    try:
        loaded = load_backbone(BackboneSpec(id=str(folder)))
        assert type(loaded.tokenizer).__module__.startswith("transformers.")
    except BackboneError:
        pass
    assert not marker.exists()


def test_a_model_of_another_kind_with_code_is_refused(tmp_path: Path, marker: Path) -> None:
    folder = clip_folder(tmp_path / "clip")
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    config = {"model_type": "own", "auto_map": {"AutoModel": "own.Own", "AutoConfig": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    text = refused(marker, BackboneError, lambda: load_backbone(BackboneSpec(id=str(folder))))
    assert "model_type clip" in text


def test_records_hold_text_and_numbers_only() -> None:
    """Nothing else survives JSON, so a record cannot carry an object to be made on reading."""
    assert json.loads(record().to_json())["run_id"] == record().run_id
