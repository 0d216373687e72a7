"""Class names to prompts, the text side of zero-shot classification."""

from __future__ import annotations

from collections.abc import Sequence

from clipdrift.errors import DataError, Fault

DEFAULT_TEMPLATES: tuple[str, ...] = ("a photo of a {}",)


def readable(class_name: str) -> str:
    """A class name as it is written into prompts: underscores become spaces, case is kept.

    Folder and column names cannot hold spaces comfortably, CLIP's text tower expects them; each
    choice moves CIFAR-100 by about a point, so the rule is one and the prompts are recorded.

    >>> readable("aquarium_fish")
    'aquarium fish'
    """
    return " ".join(class_name.replace("_", " ").split())


def class_prompts(
    class_names: Sequence[str], templates: Sequence[str], *, underscores: str = "spaces"
) -> list[list[str]]:
    """Prompts per class, in label order; one per template, in the order of the templates.

    Args:
        underscores: "spaces", or "kept", where names go into prompts as they are.

    Raises:
        DataError: no template, a template without exactly one {}, names that are empty or equal
            as they are written.

    >>> class_prompts(["annual_crop", "river"], DEFAULT_TEMPLATES)
    [['a photo of a annual crop'], ['a photo of a river']]
    >>> class_prompts(["annual_crop", "river"], ["{}."], underscores="kept")
    [['annual_crop.'], ['river.']]
    """
    kept = underscores == "kept"
    names = [name if kept else readable(name) for name in class_names]
    faults = [
        Fault("templates", "exactly one {} in each", repr(template), "Mark where the name goes")
        for template in templates
        if template.count("{}") != 1
    ]
    if not templates:
        faults.append(Fault("templates", "at least one", "none", "Write 'a photo of a {}'"))
    seen: dict[str, str] = {}
    for written, name in zip(class_names, names, strict=True):
        if not readable(name):
            faults.append(Fault("class_names", "letters in every name", repr(written), "Name it"))
        elif name in seen:
            faults.append(
                Fault(
                    "class_names",
                    "names that differ" + ("" if kept else " once underscores are spaces"),
                    f"{seen[name]!r} and {written!r}",
                    "Give class_names that tell these classes apart",
                )
            )
        seen[name] = written
    if faults:
        raise DataError(faults)
    return [[template.replace("{}", name) for template in templates] for name in names]
