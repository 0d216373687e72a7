"""Datasets of the Hugging Face Hub, through `datasets`; loading scripts are never run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from clipdrift.data.cells import image_source, require_columns
from clipdrift.data.decode import UnreadableImageError, open_image
from clipdrift.data.naming import whole_number
from clipdrift.data.parts import identity_of
from clipdrift.data.rows import Rows, asked_columns, content_of
from clipdrift.data.shards import MAX_TEXT, shard_rows
from clipdrift.errors import DataError, Fault, UnavailableError
from clipdrift.hub import Unfit, answers, watched
from clipdrift.paths import leads_out, read_file
from clipdrift.spec.datasets import DatasetSpec, TransferSpec

if TYPE_CHECKING:
    from datasets import Dataset

Got = TypeVar("Got")
SHARD_COUNT = "nshards.txt"
"""What CLIP_benchmark writes beside shards: how many there are."""
SAVED_NAMES = "classnames.txt"
"""And above them: the names of classes, in label order."""


def hub_rows(spec: DatasetSpec) -> dict[str, Rows]:
    """The rows of `spec.hub` that `spec.hub_splits` names; of a transfer dataset only the test.

    Args:
        spec: where `hub` is an id, with `revision` where it is to be pinned, and `hub_config` where
            the id holds several datasets.

    Raises:
        DataError: unknown, private or gated id; no network and nothing in the cache; a dataset
            that needs a script; an unknown split or column.
    """
    splits = {part: split for part, split in spec.hub_splits.model_dump().items() if split}
    if isinstance(spec, TransferSpec) and "test" in splits:
        splits = {"test": splits["test"]}
    if not splits:
        raise DataError(
            Fault(f"{spec.name}.hub_splits", "train or test", "neither", "Name at least one split")
        )
    return {part: _part(spec, split) for part, split in splits.items()}


def _part(spec: DatasetSpec, split: str) -> Rows:
    """A split by its name, or the shards that it lies in.

    Raises:
        DataError: shards that are not the repository's own, or not all of them.
    """
    if "/" in split or "*" in split:
        return _shards(spec, split)
    table = _load(spec, split)
    require_columns(table.column_names, spec.image_column, asked_columns(spec), where=spec.name)
    return _rows(table, spec, split)


def _shards(spec: DatasetSpec, pattern: str) -> Rows:
    from huggingface_hub import snapshot_download

    where, asked = f"{spec.name}.hub_splits", PurePosixPath(pattern)
    if asked.is_absolute() or ".." in asked.parts or asked.suffix != ".tar":
        expected = "names of splits, or of shards in the repository (test/*.tar)"
        raise DataError(Fault(where, expected, pattern, "Correct it"))
    count = asked.with_name(SHARD_COUNT)

    def fetch(reached: bool) -> str:
        wanted = [pattern, str(count), SAVED_NAMES]
        return snapshot_download(
            str(spec.hub),
            repo_type="dataset",
            revision=spec.revision,
            allow_patterns=wanted,
            local_files_only=not reached,
        )

    folder, reached = _fetched(spec, fetch)
    there = len(list(Path(folder).glob(pattern)))
    n_shards = whole_number(_text(Path(folder) / count, where).strip())
    if there == 0 or n_shards not in (None, there):
        of_all = "" if n_shards is None else f" of {n_shards}"
        step = "Correct hub_splits" if reached else _CONNECT
        fault = Fault(where, f"all shards {pattern} of {spec.hub}", f"{there}{of_all}", step)
        raise DataError(fault) if reached else UnavailableError(fault)
    rows = shard_rows(Path(folder) / pattern, spec, where)
    names = _text(Path(folder) / SAVED_NAMES, where).rstrip("\n")
    known = names and spec.labels_column is None and not spec.paired
    return replace(rows, class_names=tuple(names.split("\n"))) if known else rows


def _text(path: Path, where: str) -> str:
    """Of a small file, "" where there is none."""
    if not path.is_file():
        return ""
    try:
        return read_file(path, MAX_TEXT).decode("utf-8", "replace")
    except OSError as error:
        got, step = f"{path.name}: {error.strerror}", "Try another copy of the data"
        raise DataError(Fault(where, "small texts beside shards", got, step)) from None


def _rows(table: Dataset, spec: DatasetSpec, split: str) -> Rows:
    columns = [name for _, name in asked_columns(spec)]
    cells = table.select_columns(columns).with_format("arrow")[:]
    kind = table.features[columns[0]]
    names = getattr(getattr(kind, "feature", kind), "names", None)  # of labels, or lists of them
    source = _sources(table, spec.image_column)
    return Rows(
        where=spec.name,
        cells=[cells.column(name).to_pylist() for name in columns],
        names=_Rows(split, len(table)),
        load=lambda row: open_image(source(row)),
        content=lambda row: content_of(source, row),
        identity=identity_of(
            "hub",
            [spec.hub, spec.revision, spec.hub_config, split, spec.image_column, *columns],
            [str(table._fingerprint), len(table)],
        ),
        class_names=tuple(names) if names else None,
    )


class _Rows(Sequence[str]):
    """'<split> row <i>', made when asked for."""

    def __init__(self, split: str, count: int) -> None:
        self._split, self._count = split, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: Any) -> Any:
        return f"{self._split} row {range(self._count)[row]}"


def _load(spec: DatasetSpec, split: str) -> Dataset:
    import datasets

    def fetch(reached: bool) -> Dataset:
        with _from_cache_alone(not reached):
            return datasets.load_dataset(
                spec.hub, spec.hub_config, split=split, revision=spec.revision
            )

    table, reached = _fetched(spec, fetch)
    if spec.revision and not reached:
        _require_commit(table, spec)
    return table


def _fetched(spec: DatasetSpec, fetch: Callable[[bool], Got]) -> tuple[Got, bool]:
    """What comes of a hub that is told whether it answers; and whether it does.

    Raises:
        DataError: what the hub refuses or may not do.
    """
    try:
        with watched():
            reached = answers(str(spec.hub), spec.revision, "dataset")
            return fetch(reached), reached
    except Unfit as unfit:
        step = "Try again later, or download it from a hub that you trust and use files:"
        raise DataError(Fault(f"{spec.name}.hub", unfit.expected, unfit.got, step)) from None
    except Exception as error:  # HTTP clients and file systems have many more
        fault = _fault(spec, error)
        away = fault.next_step in _OUT_OF_REACH
        raise (UnavailableError(fault) if away else DataError(fault)) from error


@contextmanager
def _from_cache_alone(wanted: bool) -> Iterator[None]:
    """While it lasts, `datasets` looks into its cache and asks nobody; it has no option for it."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _require_commit(table: Dataset, spec: DatasetSpec) -> None:
    """Out of reach of the hub, `datasets` takes whatever commit it has cached, pinned or not."""
    used = {Path(file["filename"]).parent.name for file in table.cache_files}
    if used and _commit(spec) not in used:
        raise DataError(
            Fault(
                f"{spec.name}.revision",
                f"{spec.hub} at {spec.revision}",
                f"{', '.join(sorted(used))} from the cache, and no answer from the hub",
                "Connect to fetch that revision, or name the cached commit",
            )
        )


def _commit(spec: DatasetSpec) -> str:
    """The commit that the revision stood for when it was last downloaded; "" if it never was."""
    from huggingface_hub import constants

    revision = str(spec.revision)
    if re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    folder = Path(constants.HF_HUB_CACHE) / f"datasets--{str(spec.hub).replace('/', '--')}"
    try:
        return (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


_CONNECT = "Connect once so that it is cached, or download it and use files:"
_NEXT_STEPS = (
    ("gated", "Accept its terms on huggingface.co and log in with `hf auth login`"),
    ("dataset scripts", "Use a Parquet copy of it: revision: refs/convert/parquet, or files:"),
    ("unknown split", "Set hub_splits to splits it has; test: null carves one from train"),
    ("config name", "Set hub_config to one of those it has"),
    ("builderconfig", "Set hub_config to one of those it has"),
    ("couldn't reach", _CONNECT),
    ("offline", _CONNECT),
    ("timed out", "Run again to resume it, or download it and use files:"),
    ("peer closed", "Run again to resume it, or download it and use files:"),
    ("connection", _CONNECT),
    ("couldn't find cache", _CONNECT),
    ("cached snapshot", _CONNECT),
    ("repository not found", "Check the id and the revision; log in if it is private"),
    ("invalid rev id", "Check the id and the revision; log in if it is private"),
    ("doesn't exist", "Check the id and the revision; log in if it is private"),
    ("no (supported) data files", "Check that it holds images with labels"),
    ("contain any data files", "Check that it holds images with labels"),
)

_OUT_OF_REACH = {
    step for key, step in _NEXT_STEPS if key in {"gated", "offline", "timed out", "doesn't exist"}
}
"""Of what is not to be had here and now."""


def _fault(spec: DatasetSpec, error: Exception) -> Fault:
    text = " ".join(str(error).split()) or type(error).__name__
    step = next((step for key, step in _NEXT_STEPS if key in text.casefold()), "Check the id")
    revision = f" at {spec.revision}" if spec.revision else ""
    expected = f"the dataset {spec.hub}{revision} from the Hugging Face Hub"
    return Fault(f"{spec.name}.hub", expected, text.rstrip(".")[:300], step)


def _sources(table: Dataset, column: str) -> Callable[[int], bytes | Path]:
    """Bytes come from `datasets`, decoding is ours, so that every source is read alike."""
    import datasets

    images = table.select_columns([column])
    if isinstance(table.features[column], datasets.Image):
        images = images.cast_column(column, datasets.Image(decode=False))
    return lambda row: _source(images[row][column])


def _source(cell: Any) -> bytes | Path:
    """Bytes, or a file of the hub's own cache: what a hub sends names no other file of a disk."""
    from datasets import config
    from huggingface_hub import constants

    held = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if isinstance(held, bytes):
        return held
    path = cell.get("path") if isinstance(cell, Mapping) else cell
    caches = (config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE)
    if isinstance(path, str) and path and all(leads_out(path, cache) for cache in caches):
        raise UnreadableImageError("a path outside of the hub's cache")
    return image_source(None, path if isinstance(path, str) else None, Path("/"))
