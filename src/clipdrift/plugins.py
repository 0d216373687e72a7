"""What other packages add: methods, penalties, probes and datasets, found by their entry points.

A package names them in its own metadata, in the groups `clipdrift.methods`, `clipdrift.penalties`,
`clipdrift.probes` and `clipdrift.datasets`. Nothing of a package is imported before a study names
what it adds. Then its code runs with the rights of whoever runs the study, as that of any package
that was installed: see SECURITY.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from clipdrift.errors import ClipdriftError, Fault, PluginError, did_you_mean

Kind = Literal["methods", "penalties", "probes", "datasets"]


@dataclass(frozen=True)
class Plugin:
    """One thing that a package adds."""

    kind: Kind
    name: str
    package: str
    version: str
    entry: EntryPoint

    @property
    def origin(self) -> str:
        """Package and version: part of the identity of runs that use it."""
        return f"{self.package} {self.version}"


def installed(kind: Kind) -> dict[str, list[Plugin]]:
    """Name -> what is installed under it, one per package; nothing is imported."""
    found: dict[str, list[Plugin]] = {}
    for entry in entry_points(group=f"clipdrift.{kind}"):
        package = entry.dist.name if entry.dist else "a package without metadata"
        version = entry.dist.version if entry.dist else "unknown"
        same = found.setdefault(entry.name, [])
        if all(plugin.package != package for plugin in same):  # a path may be listed twice
            same.append(Plugin(kind, entry.name, package, version, entry))
    return found


def find(kind: Kind, name: str, where: str, *, ours: Collection[str] = ()) -> Plugin:
    """The one plugin of a name.

    Args:
        where: what a fault is to name.
        ours: names that clipdrift has itself; no plugin may take one.

    Raises:
        PluginError: if there is none, several packages offer one, or the name is ours.
    """
    known = installed(kind)
    same = known.get(name, [])
    if name in ours:
        step = "Ask its maker for another name, or use clipdrift's own"
        got = f"{name!r}, which clipdrift has itself"
        raise PluginError(Fault(where, "a plugin with a name of its own", got, step))
    if len(same) > 1:
        packages = " and ".join(plugin.origin for plugin in same)
        step = "Uninstall one of them"
        raise PluginError(Fault(where, f"one package that adds {name!r}", packages, step))
    if not same:
        step = did_you_mean(name, sorted(known), "Install the package that adds it")
        names = ", ".join(sorted(known)) or "none is installed"
        rule = f"a name in the entry points clipdrift.{kind} of installed packages ({names})"
        raise PluginError(Fault(where, rule, repr(name), step))
    return same[0]


@cache
def _imported(entry: EntryPoint) -> Any:
    return entry.load()


def load(plugin: Plugin, where: str) -> Any:
    """What the entry point names, imported.

    Raises:
        PluginError: if importing it fails, whatever its code raises.
    """
    try:
        return _imported(plugin.entry)
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        step = f"Mend or update {plugin.package}, or leave it out of the study"
        rule = f"{plugin.entry.value} of {plugin.origin} to be importable"
        raise PluginError(Fault(where, rule, got, step)) from error


def call(plugin: Plugin, where: str, function: Callable[[], Any]) -> Any:
    """What a plugin's function gives; whatever it raises names the plugin.

    Raises:
        ClipdriftError: as the plugin raised it; a `PluginError` for anything else.
    """
    try:
        return function()
    except (ClipdriftError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        got = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        step = f"Mend the options, or update {plugin.package}"
        raise PluginError(
            Fault(where, f"{plugin.name} of {plugin.origin} to work", got, step)
        ) from error


def wrong_type(plugin: Plugin, where: str, expected: str, got: object) -> PluginError:
    """The fault of a plugin that is not what its group promises."""
    step = f"Mend {plugin.package}; docs/extending.md shows how"
    told = f"{plugin.entry.value} of {plugin.origin}, {type(got).__name__}"
    return PluginError(Fault(where, expected, told, step))
