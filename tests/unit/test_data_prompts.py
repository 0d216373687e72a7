"""Prompts: one rule for class names, and the faults of names and templates."""

from __future__ import annotations

import pytest

from clipdrift.data.prompts import DEFAULT_TEMPLATES, class_prompts
from clipdrift.errors import DataError


def test_one_list_per_class_in_the_order_of_the_templates() -> None:
    assert class_prompts(["sea lake", "river"], ["a {}.", "{} from above"]) == [
        ["a sea lake.", "sea lake from above"],
        ["a river.", "river from above"],
    ]


def test_underscores_become_spaces_and_case_is_kept() -> None:
    assert class_prompts(["Maine_Coon", " aquarium__fish "], DEFAULT_TEMPLATES) == [
        ["a photo of a Maine Coon"],
        ["a photo of a aquarium fish"],
    ]


def test_braces_in_a_name_are_letters_like_any_other() -> None:
    assert class_prompts(["{0}", "a{}b"], ["x {}"]) == [["x {0}"], ["x a{}b"]]


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(DataError) as raised:
        class_prompts(["a_b", "a b", "_"], ["no slot", "{} and {}"])
    assert str(raised.value).splitlines() == [
        "templates: expected exactly one {} in each, got 'no slot'. Mark where the name goes.",
        "templates: expected exactly one {} in each, got '{} and {}'. Mark where the name goes.",
        (
            "class_names: expected names that differ once underscores are spaces, "
            "got 'a_b' and 'a b'. Give class_names that tell these classes apart."
        ),
        "class_names: expected letters in every name, got '_'. Name it.",
    ]


def test_no_template_is_a_fault() -> None:
    with pytest.raises(DataError, match="templates: expected at least one, got none"):
        class_prompts(["a", "b"], [])


def test_underscores_that_are_kept_are_written_and_tell_names_apart() -> None:
    names = ["aquarium_fish", "cra", "aquarium fish"]
    assert class_prompts(names, DEFAULT_TEMPLATES, underscores="kept") == [
        ["a photo of a aquarium_fish"], ["a photo of a cra"], ["a photo of a aquarium fish"],
    ]  # fmt: skip
    with pytest.raises(DataError, match="names that differ, got 'a_b' and 'a_b'"):
        class_prompts(["a_b", "a_b"], DEFAULT_TEMPLATES, underscores="kept")
