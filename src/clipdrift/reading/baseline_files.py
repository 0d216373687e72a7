"""What the untouched backbone reads, in files: each set is measured once, by the first who asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clipdrift.backbone import Backbone
from clipdrift.data.images import Images
from clipdrift.errors import Fault, RecordError
from clipdrift.materials import Materials, TransferMaterial
from clipdrift.probes.gradient import DRAWS
from clipdrift.probes.traces import FLOW_IMAGES, GRADIENT_IMAGES
from clipdrift.reading.baseline import (
    Baselines,
    load_reading,
    load_traces,
    load_transfer,
    measure_transfer,
    probe,
    save_reading,
    save_traces,
    save_transfer,
)
from clipdrift.reading.panel import traces
from clipdrift.records import StudyFolder
from clipdrift.records.claims import claim
from clipdrift.spec import PROTOCOL_VERSION, StudySpec, content_hash
from clipdrift.spec.parts import EvaluationSpec

Report = Callable[[str], None]

WAIT_SECONDS = 0.5
"""Between looks at whether those who measure the baselines are done."""


@dataclass(frozen=True)
class BaselineFiles:
    """Files of one backbone's readings in a folder; names follow content, so none goes stale."""

    folder: Path
    backbone: Backbone
    batch_size: int
    in_full: bool = False
    panel: bool = False

    @classmethod
    def of_study(
        cls, folder: StudyFolder, backbone: Backbone, evaluation: EvaluationSpec
    ) -> BaselineFiles:
        place = folder.path / "baselines"
        asked = evaluation
        return cls(place, backbone, asked.batch_size, asked.in_full, asked.panel)

    def ensure(
        self, probes: Mapping[str, Images], sets: Iterable[TransferMaterial], report: Report
    ) -> None:
        """Measure what is not there.

        Safe for many processes at once: each set is measured by one of them, while the others take
        another set or wait.

        Args:
            probes: name -> images on which drift is read.
            sets: scored zero-shot.
        """
        missing = [partial(self._probe, *named, report) for named in probes.items()]
        if self.panel:
            missing += [partial(self._traces, *named, report) for named in probes.items()]
        missing += [partial(self._zero_shot, one, report) for one in sets]
        while left := [ensure for ensure in missing if not ensure()]:
            if len(left) == len(missing):  # others are at all of them
                time.sleep(WAIT_SECONDS)
            missing = left

    def read(
        self,
        name: str,
        images: Images,
        target: TransferMaterial | None,
        transfers: Mapping[str, TransferMaterial],
    ) -> Baselines:
        """What `ensure` wrote.

        Args:
            name, images: of the probe set.
            target: the target's test part, if there is a target.

        Raises:
            RecordError: if something is missing or damaged.
        """
        reading = load_reading(self._probe_path(name, images))
        sets = [*([] if target is None else [target]), *transfers.values()]
        found = [load_transfer(self._zero_shot_path(one)) for one in sets]
        whole = [one for one in found if one is not None]
        traced = load_traces(self._traces_path(name, images)) if self.panel else None
        if reading is None or len(whole) < len(found) or (self.panel and traced is None):
            raise RecordError(
                Fault(
                    str(self.folder),
                    "readings of the untouched backbone",
                    "missing or damaged files",
                    "Run the study again",
                )
            )
        own = None if target is None else whole.pop(0)
        return Baselines(reading, own, dict(zip(transfers, whole, strict=True)), traced)

    def _probe(self, name: str, images: Images, report: Report) -> bool:
        path = self._probe_path(name, images)

        def take() -> None:
            report(f"baseline drift readings: {name}")
            save_reading(probe(self.backbone.encoder(), images), path)

        return self._once(path, load_reading, take)

    def _traces(self, name: str, images: Images, report: Report) -> bool:
        path = self._traces_path(name, images)

        def take() -> None:
            report(f"baseline attention flow and gradients: {name}")
            save_traces(traces(self.backbone.live_encoder(), images), path)

        return self._once(path, load_traces, take)

    def _zero_shot(self, material: TransferMaterial, report: Report) -> bool:
        path = self._zero_shot_path(material)

        def take() -> None:
            report(f"baseline zero-shot accuracy: {material.name}")
            found = measure_transfer(
                self.backbone,
                material.prompts,
                material.images,
                material.epoch_images,
                batch_size=self.batch_size,
                in_full=self.in_full,
            )
            save_transfer(found, path)

        return self._once(path, load_transfer, take)

    def _once(
        self, path: Path, load: Callable[[Path], object | None], take: Callable[[], None]
    ) -> bool:
        """Whether a reading is there now; False while another process takes it."""
        if load(path) is not None:
            return True
        with claim(self.folder.parent / ".locks" / f"baseline-{path.stem}") as mine:
            if mine and load(path) is None:
                take()
            return mine

    def _probe_path(self, name: str, images: Images) -> Path:
        return self._path(name, images.sha256())

    def _traces_path(self, name: str, images: Images) -> Path:
        return self._path(
            f"{name}-traces", images.sha256(), f"{DRAWS} of {GRADIENT_IMAGES}, {FLOW_IMAGES}"
        )

    def _zero_shot_path(self, material: TransferMaterial) -> Path:
        return self._path(material.name, material.sha256, *(["in_full"] if self.in_full else []))

    def _path(self, name: str, *content: str) -> Path:
        """Named after content, so that a changed backbone or set is measured anew."""
        mark = content_hash([PROTOCOL_VERSION, self.backbone.sha256, *content])
        return self.folder / f"{name}-{mark[:12]}.safetensors"


def ensure_baselines(
    spec: StudySpec, materials: Materials, folder: StudyFolder, report: Report
) -> None:
    """Measure the untouched backbone on every probe, test and transfer set, once per study."""
    targets = materials.targets.values()
    sets = [*(target.zero_shot for target in targets), *materials.transfers.values()]
    files = BaselineFiles.of_study(folder, materials.backbone, spec.evaluation)
    files.ensure({target.name: target.probe for target in targets}, sets, report)
