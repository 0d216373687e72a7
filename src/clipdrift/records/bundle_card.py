"""What a bundle's README says of its study, with the head that a dataset has on the hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import yaml

from clipdrift.errors import printable
from clipdrift.records.schema import RunRecord

WORDS = """
# {title}

{n} runs of a study made with clipdrift: what fine-tuning of a CLIP-style model buys in accuracy
and costs in zero-shot ability, one record a run.

| | |
|---|---|
{facts}

```sh
pip install clipdrift
clipdrift import FILE.tar.xz --out results/   # checks every file by its hash
clipdrift report results/
```

## Licence

{licence}

## Citation

{citation}
"""
NO_LICENCE = "None stated: ask the authors before you pass it on."
NO_CITATION = "None stated."


class Said(Protocol):
    """What people say of a bundle."""

    title: str
    licence: str | None
    citation: str | None


def card(said: Said, records: Sequence[RunRecord]) -> str:
    """Markdown with a YAML head: license, pretty_name, tags, task_categories."""
    head = {
        **({"license": said.licence.lower()} if said.licence else {}),
        "pretty_name": said.title,
        "tags": ["clipdrift", "clip", "fine-tuning", "zero-shot"],
        "task_categories": ["zero-shot-image-classification", "image-classification"],
    }
    states = Counter(record.status for record in records)
    facts = {
        "backbones": sorted({record.backbone for record in records}),
        "targets": sorted({record.target for record in records}),
        "methods": sorted({record.method for record in records}),
        "learning rates": [f"{rate:g}" for rate in sorted({r.learning_rate for r in records})],
        "seeds": list(map(str, sorted({record.seed for record in records}))),
        "read before and after": sorted({name for r in records for name in r.result.transfer}),
        "runs": [f"{n} {state}" for state, n in sorted(states.items())],
    }
    lines = [f"| {name} | {_cell(values)} |" for name, values in facts.items()]
    text = WORDS.format(
        title=_plain(said.title),
        n=len(records),
        facts="\n".join(lines),
        licence=said.licence or NO_LICENCE,
        citation=_plain(said.citation or NO_CITATION),
    )
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n{text}"


def _cell(values: Sequence[str]) -> str:
    return ", ".join(_plain(value).replace("|", "\\|") for value in values) or "-"


def _plain(text: str) -> str:
    """Text that neither ends the line nor opens HTML."""
    return printable(" ".join(text.split())).replace("<", "&lt;")
