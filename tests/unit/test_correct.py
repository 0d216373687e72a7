"""Which images were right: bits that come back, and that agree with the accuracies stated."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from pydantic import ValidationError

from clipdrift.records.correct import Correct
from clipdrift.records.readings import Reading, Result
from clipdrift.records.transfer import TransferReading


@pytest.mark.parametrize("n", [1, 7, 8, 9, 600])
def test_bits_come_back_through_json(n: int) -> None:
    hits = np.random.default_rng(n).random(n) < 0.4
    text = Correct.of(hits).model_dump_json()
    back = Correct.model_validate_json(text)
    assert back.hits.tolist() == hits.tolist()
    assert back.accuracy == hits.mean()
    # Bit by bit, the first image highest, by Python's own integers.
    whole = int.from_bytes(base64.b64decode(json.loads(text)["bits"]))
    width = 8 * ((n + 7) // 8)
    assert [bool(whole >> (width - 1 - i) & 1) for i in range(n)] == hits.tolist()


@pytest.mark.parametrize(
    ("n", "bits", "words"),
    [
        (3, "oB==!", "no base64"),
        (3, "oAA=", "other than 3 images"),
        (9, "oA==", "other than 9 images"),
        (3, "sA==", "other than 3 images"),  # a fourth image
        (0, "", "greater than or equal to 1"),
        (10**12, "oA==", "less than or equal to"),
    ],
)
def test_damaged_bits_are_refused(n: int, bits: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Correct(n=n, bits=bits)


def test_a_reading_that_contradicts_its_images_is_refused() -> None:
    correct = Correct.of(np.array([True, False, True, True]))
    zero_shot = TransferReading(accuracy=0.75, baseline_accuracy=0.5)
    Reading(transfer={"x.y": zero_shot}, correct={"transfer.x.y.accuracy": correct})
    with pytest.raises(ValidationError, match=r"baseline_accuracy is 0\.5, its images say 0\.75"):
        Reading(transfer={"x": zero_shot}, correct={"transfer.x.baseline_accuracy": correct})
    with pytest.raises(ValidationError, match="val_accuracy is None"):
        Reading(correct={"val_accuracy": correct})
    extra = {"interpolation.0.5.test_accuracy": 0.75}
    name = "extra.interpolation.0.5.test_accuracy"
    assert Result(extra=extra, correct={name: correct}).correct[name].n == 4


def test_what_is_not_known_leaves_older_records_as_they_were() -> None:
    zero_shot = TransferReading(accuracy=0.75, baseline_accuracy=0.5)
    for reading in (Reading(), Result(test_accuracy=0.5, transfer={"x": zero_shot})):
        text = reading.model_dump_json()
        assert not any(name in text for name in ('correct"', 'chance"', "target_zero_shot"))
