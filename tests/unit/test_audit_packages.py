"""An audit that could not ask is no clean one."""

from __future__ import annotations

import audit_packages
import pytest

PINS = [
    line.partition("==")[0]
    for line in audit_packages.CONSTRAINTS.read_text().splitlines()
    if line and not line.startswith("#")
]


def rows(*, skipped: str = "", bad: str = "") -> list[dict[str, object]]:
    """What pip-audit prints of all pins."""
    return [
        {"name": name, "skip_reason": "Dependency not found on PyPI"}
        if name == skipped
        else {"name": name, "version": "1", "vulns": [{"id": "PYSEC-1"}] if name == bad else []}
        for name in PINS
    ]


def test_clean_and_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit_packages, "ask", lambda service, pins: (rows(), ""))
    assert audit_packages.main() == 0
    assert capsys.readouterr().out == f"{len(PINS)} packages asked about, 0 with findings\n"
    monkeypatch.setattr(audit_packages, "ask", lambda service, pins: (rows(bad="pillow"), ""))
    assert audit_packages.main() == 1
    assert 'pillow: [{"id": "PYSEC-1"}]' in capsys.readouterr().out


def test_a_single_package_that_could_not_be_asked_about_is_no_clean_audit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        audit_packages, "ask", lambda service, pins: (rows(skipped="torch"), "not found")
    )
    assert audit_packages.main() == 2
    told = capsys.readouterr().out
    assert f"pypi: {len(PINS) - 1} of {len(PINS)} packages could be asked about. not found" in told
    assert told.splitlines()[-1].startswith("NOT AUDITED")


def test_the_second_service_is_asked_where_the_first_knows_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {"pypi": ([], "no connection"), "osv": (rows(), "")}
    monkeypatch.setattr(audit_packages, "ask", lambda service, pins: answers[service])
    assert audit_packages.main() == 0
