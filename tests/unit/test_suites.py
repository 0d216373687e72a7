"""Suites: whose sets they are, what a study makes of them, and what of them may be missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipdrift.backbone import load_backbone
from clipdrift.cli.tables import dataset_card
from clipdrift.commands.scaffold import study_text
from clipdrift.data.builtin import known_names
from clipdrift.data.catalogue import catalogue
from clipdrift.errors import ClipdriftError, DataError, SpecError
from clipdrift.materials import load_materials, without_missing
from clipdrift.reading.sets import open_transfers
from clipdrift.spec import StudySpec, dump_spec, expand, parse_spec
from clipdrift.spec.datasets import PAIRED
from clipdrift.spec.parts import BackboneSpec
from clipdrift.spec.suites import SUITES

STUDY = """\
name: a
targets: [land-cover]
transfers:
{transfers}
methods: [linear_probe]
learning_rates: [1.0e-4]
seeds: [1]
"""
AS_PUBLISHED = {
    # README of mlfoundations/task_vectors, "fine-tuned checkpoints on eight downstream tasks".
    "task-arithmetic": "Stanford Cars, DTD, EuroSAT, GTSRB, MNIST, RESISC45, SUN397, SVHN",
    # README of mlfoundations/patching: nine patching tasks and five supported ones.
    "paint": "Stanford Cars, DTD, EuroSAT, GTSRB, KITTI distance, MNIST, RESISC45, SUN397, SVHN, "
    "ImageNet, CIFAR-10, CIFAR-100, STL-10, Food101",
    # --eval-datasets of Thunderbeee/ZSCL.
    "mtil": "Aircraft, Caltech101, CIFAR100, DTD, EuroSAT, Flowers, Food, MNIST, OxfordPet, "
    "StanfordCars, SUN397",
    # Wortsman et al. 2022: "five derived distribution shifts".
    "imagenet-shifts": "ImageNet-V2, ImageNet-R, ImageNet Sketch, ObjectNet, ImageNet-A",
    # Names in tasklist.yml of mlfoundations/datacomp, of the sets that are in its average.
    "datacomp": "Caltech-101, CIFAR-10, CIFAR-100, CLEVR Counts, CLEVR Distance, Country211, "
    "Describable Textures, EuroSAT, FGVC Aircraft, Food-101, GTSRB, ImageNet 1k, ImageNet Sketch, "
    "ImageNet v2, ImageNet-A, ImageNet-O, ImageNet-R, KITTI Vehicle Distance, MNIST, ObjectNet, "
    "Oxford Flowers-102, Oxford-IIIT Pet, Pascal VOC 2007, PatchCamelyon, Rendered SST2, RESISC45, "
    "Stanford Cars, STL-10, SUN397, SVHN, Flickr, MSCOCO, WinoGAViL, iWildCam, Camelyon17, FMoW, "
    "Dollar Street, GeoDE",
}
NOT_NAMED = {"winogavil", "iwildcam", "dollarstreet", "geode"}
OURS = {
    "stanfordcars": "cars", "kittidistance": "kittidistance", "flowers": "flowers102",
    "food": "food101", "oxfordpet": "pets", "clevrcounts": "clevrcount",
    "describabletextures": "dtd", "fgvcaircraft": "aircraft", "imagenet1k": "imagenet",
    "kittivehicledistance": "kittidistance", "oxfordflowers102": "flowers102",
    "oxfordiiitpet": "pets", "pascalvoc2007": "voc2007", "patchcamelyon": "pcam",
    "flickr": "flickr30k", "mscoco": "coco",
}  # fmt: skip


def plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def study(*transfers: str) -> StudySpec:
    return parse_spec(STUDY.format(transfers="\n".join(f"  - {one}" for one in transfers)))


@pytest.mark.parametrize("suite", AS_PUBLISHED)
def test_members_are_those_that_were_published(suite: str) -> None:
    published = {plain(name) for name in AS_PUBLISHED[suite].split(", ")}
    named = {OURS.get(name, name) for name in published - NOT_NAMED}
    assert {plain(name) for name in SUITES[suite]} == named
    assert len(SUITES[suite]) == len(published - NOT_NAMED)


def test_there_are_38_of_datacomp_of_which_34_can_be_named() -> None:
    assert len(AS_PUBLISHED["datacomp"].split(", ")) == 38
    assert len(SUITES["datacomp"]) == 34


def test_every_member_is_known_and_no_suite_is_called_like_a_set() -> None:
    for members in SUITES.values():
        assert set(members) <= set(known_names())
    assert not set(SUITES) & set(known_names())
    captioned = {name for name, entry in catalogue().items() if entry.caption_column}
    assert captioned == set(PAIRED) - {"scenes"}


def test_a_study_names_every_member_with_what_was_said_of_all() -> None:
    asked = study("{suite: datacomp, n_images: 50, seed: 3, templates: single, leave_out: [pets]}")
    assert [one.name for one in asked.transfers] == [n for n in SUITES["datacomp"] if n != "pets"]
    for one in asked.transfers:
        assert (one.builtin, one.n_images, one.seed, one.too_few) == (one.name, 50, 3, "all")
        assert one.templates == (None if one.name in PAIRED else "single")
    # What is written down is an ordinary study, which reads as it was.
    written = dump_spec(asked)
    assert "suite" not in written
    assert parse_spec(written) == asked


def test_a_set_that_two_suites_share_is_read_once_and_alike() -> None:
    names = [one.name for one in study("mtil", "{suite: task-arithmetic}").transfers]
    assert names == [*SUITES["mtil"], "gtsrb", "resisc45", "svhn"]
    with pytest.raises(SpecError, match="expected distinct values, got dtd twice"):
        study("mtil", "{suite: task-arithmetic, n_images: 5}")


def test_a_member_by_itself_gives_the_runs_that_it_gives_in_a_suite() -> None:
    others = [name for name in SUITES["quick"] if name != "world"]
    suite = study(f"{{suite: quick, n_images: 9, missing: skip, leave_out: {others}}}")
    alone = study("{name: world, builtin: world, n_images: 9}")
    runs = [expand(one, precision="float32")[0] for one in (suite, alone, study("world"))]
    identities = [run.identity({}) for run in runs]
    assert identities[0] == identities[1] != identities[2]


def test_copies_of_ones_own_are_named_for_members(tmp_path: Path) -> None:
    text = STUDY.format(transfers="  - {suite: paint, folders: {imagenet: in1k}}")
    asked = {one.name: one for one in parse_spec(text, folder=tmp_path).transfers}
    assert asked["imagenet"].folder == str(tmp_path / "in1k")
    assert asked["cars"].folder is None


def test_faults_name_the_line_of_the_suite_and_of_what_follows_it() -> None:
    with pytest.raises(SpecError) as raised:
        study(
            "{suite: mtl}",
            "{suite: mtil, n_images: 0, nimages: 5}",
            "{suite: quick, leave_out: [cars]}",
            "{suite: task-arithmetic, missing: maybe}",
            "{name: x, builtin: world, n_images: -3}",
        )
    keys = "draw, folders, leave_out, max_bad_images, missing, n_images, seed, suite, templates"
    told = [str(fault).partition(", got")[0] for fault in raised.value.faults]
    assert told == [
        f"study:4 transfers.0: expected one of {', '.join(SUITES)}",
        "study:5 transfers.1.n_images: expected greater than or equal to 1",
        f"study:5 transfers.1.nimages: expected a known key ({keys}, underscores)",
        "study:6 transfers.2: expected members of quick (world, land-cover, digits, scenes)",
        "study:7 transfers.3.missing: expected 'refuse' or 'skip'",
        "study:8 transfers.4.n_images: expected greater than or equal to 1",
    ]
    with pytest.raises(SpecError, match=r"study:5 transfers\.\d+\.n_images"):
        study("mtil", "{name: x, builtin: world, n_images: -3}")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    from clipdrift.data import hub

    def load(path: str, *more: Any, **named: Any) -> Any:
        raise ConnectionError(f"Couldn't reach '{path}' on the Hub (offline)")

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub, "answers", lambda *asked: False)


def test_all_members_that_are_missing_are_told_at_once(offline: None, tmp_path: Path) -> None:
    with pytest.raises(ClipdriftError) as raised:
        load_materials(study("{suite: paint}"), cache_dir=tmp_path)
    assert [fault.where.partition(".")[0] for fault in raised.value.faults] == [*SUITES["paint"]]
    assert "imagenet.folder: expected your copy of ImageNet-1k" in str(raised.value)
    with pytest.raises(DataError, match=r"cars.hub: .*\n.*dtd.hub: .*\n.*eurosat.hub:"):
        open_transfers(["paint"], load_backbone(BackboneSpec()), tmp_path)


def test_members_that_are_missing_are_left_out_where_the_study_says_so(offline: None) -> None:
    asked = study("world", "{suite: imagenet-shifts, missing: skip}", "{suite: quick, seed: 1, "
                  "leave_out: [world, land-cover, scenes], missing: skip}")  # fmt: skip
    told: list[str] = []
    left = without_missing(asked, told.append)
    # As if the others had never been named: the same runs as of a study of these two.
    assert left == study("world", "{name: digits, builtin: digits, seed: 1}")
    assert [line.split()[2] for line in told] == [*SUITES["imagenet-shifts"]]
    assert "Connect once so that it is cached" in told[0]
    whole = study("world")
    assert without_missing(whole) is whole


def test_a_study_of_which_no_set_is_left_is_refused_with_all_of_them(offline: None) -> None:
    asked = study("{suite: imagenet-shifts, missing: skip}")
    assert without_missing(asked) is asked


def test_what_is_there_and_wrong_is_never_skipped(tmp_path: Path) -> None:
    """One class, or classes that are not the set's: a fault of the data, not their absence."""
    (tmp_path / "one" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "one" / "cat" / "0.png")
    others = "imagenet-v2, imagenet-r, imagenet-a, imagenet-sketch"
    shifts = f"suite: imagenet-shifts, folders: {{objectnet: {tmp_path}/one}}"
    sets = [
        f"{{name: one, folder: {tmp_path}/one, missing: skip}}",
        f"{{{shifts}, missing: skip, leave_out: [{others}]}}",
        f"{{name: gone, folder: {tmp_path}/gone, missing: skip}}",
    ]
    left = without_missing(study(*sets))
    assert [one.name for one in left.transfers] == ["one", "objectnet"]
    with pytest.raises(ClipdriftError) as raised:
        load_materials(left, cache_dir=tmp_path)
    assert [fault.expected for fault in raised.value.faults] == ["two or more class folders"] * 2


@pytest.mark.slow
def test_a_set_with_fewer_images_than_asked_for_is_read_whole(tmp_path: Path) -> None:
    """And a gauge, which reads them all, takes a suite by its name."""
    asked = study("{suite: quick, n_images: 400, leave_out: [land-cover]}")
    found = load_materials(asked, cache_dir=tmp_path).transfers
    sizes = {name: len(one.images) for name, one in found.items()}
    assert sizes == {"world": 400, "digits": 400, "scenes": 300}
    gauged = open_transfers(["quick"], load_backbone(BackboneSpec()), tmp_path)
    assert list(gauged) == [*SUITES["quick"]]
    with pytest.raises(ClipdriftError, match=r"scenes\.n_images: expected 1 to 300"):
        load_materials(study("{name: scenes, builtin: scenes, n_images: 400}"), cache_dir=tmp_path)


def test_suites_are_written_and_shown(tmp_path: Path) -> None:
    text = study_text(None, tmp_path / "a.yaml", transfers=["quick"])
    assert [one.name for one in parse_spec(text).transfers] == [*SUITES["quick"]]
    with pytest.raises(SpecError, match="Did you mean 'mtil'"):
        study_text(None, tmp_path / "a.yaml", backbone="openai/x", transfers=["mtl"])
    assert ", ".join(SUITES["mtil"]) in "\n".join(dataset_card("mtil"))
    assert "images with captions" in dataset_card("coco")[0]
    assert "Or folder: your copy of 113 class folders" in dataset_card("objectnet")
