"""Whether a record is of the run that its own configuration describes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from clipdrift.spec import PROTOCOL_VERSION, RunConfig

if TYPE_CHECKING:
    from clipdrift.records.schema import RunRecord


def contradictions(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Field -> what the record's configuration gives for it, where the two differ.

    The identity is computed again from the configuration and the hashes of weights and data, by
    this protocol or an earlier one. A configuration that this version cannot read, as of a method
    that is not installed, and a run that failed before its data were read have none.
    """
    config: dict[str, Any] | None = record.config
    if config is None:
        return
    target, method = (_part(config, name) for name in ("target", "method"))
    stated = {
        "target": target.get("name"),
        "method": method.get("name"),
        "role": method.get("role"),
        "learning_rate": config.get("learning_rate"),
        "seed": config.get("seed"),
    }
    for name, value in stated.items():
        if value is not None and value != getattr(record, name):
            yield name, repr(value)
    named = _part(config, "backbone").get("id")
    if isinstance(named, str) and record.backbone not in (named, Path(named).name):
        yield "backbone", repr(named)
    try:
        run = RunConfig.model_validate(config)
    except ValidationError:
        return
    if run.run_id(record.identity) != record.run_id:
        yield "run_id", run.run_id(record.identity)
    content = record.provenance.get("data")
    if isinstance(content, dict):
        plugins = _part(record.provenance, "plugins")
        content = {**content, **{f"plugin.{name}": origin for name, origin in plugins.items()}}
        protocols = range(PROTOCOL_VERSION, 0, -1)
        if all(run.identity(content, protocol) != record.identity for protocol in protocols):
            yield "identity", run.identity(content)


def _part(tree: dict[str, Any], name: str) -> dict[str, Any]:
    part = tree.get(name)
    return part if isinstance(part, dict) else {}
