"""A small valid study for tests, as YAML text and as a spec with some fields changed."""

from __future__ import annotations

from typing import Any

import yaml

from clipdrift.spec import StudySpec, parse_spec

TEXT = """\
name: small
targets: [land-cover]
transfers:
  - digits
methods:
  - full_ft
  - lora
learning_rates: [1e-5, 1e-4]
seeds: [7, 11]
"""


def study(**changes: Any) -> StudySpec:
    """The small study with fields replaced."""
    return parse_spec(yaml.safe_dump({**yaml.safe_load(TEXT), **changes}))
