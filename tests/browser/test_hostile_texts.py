"""Every text that someone else can write into a record or a study, in a real browser: none runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_study import study_folder, write_packed_page
from small_study import TEXT

from clipdrift.analysis.files import write_analysis
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.spec.load import with_checksum

pytestmark = pytest.mark.browser

PAYLOADS = (
    "<script>window.hit = 1</script>",
    "</script><script>window.hit = 2</script>",
    '"><img src=x onerror="window.hit = 3">',
    "'><svg onload='window.hit = 4'></svg>",
    '<a href="javascript:window.hit = 5">press</a>',
    "<!--<script>window.hit = 6//",
    "\u2028window.hit = 7\u2028",
    "{{ 7 * 7 }}{% for a in b %}${window.hit = 8}",
    "<iframe srcdoc='<script>top.hit = 9</script>'></iframe>",
)
ALL = " ".join(PAYLOADS)
TRY_EVERYTHING = """() => {
    const nodes = document.querySelectorAll("a, button, summary, [data-runs], [tabindex]");
    const known = new Set();  // numbers of the same runs list the same
    for (const node of nodes) {
        const runs = node.dataset.runs;
        if (runs !== undefined && known.has(runs)) continue;
        known.add(runs);
        node.dispatchEvent(new MouseEvent("click", { bubbles: true }));
        node.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    }
    return window.hit ?? null;
}"""


def poisoned(make_records: Callable[..., list[RunRecord]]) -> list[RunRecord]:
    """Records whose every free text is hostile; one did not finish, one was duplicated."""
    records = make_records(
        targets=(f"a {PAYLOADS[0]}", f"b {PAYLOADS[2]}"),
        methods=(f"m {PAYLOADS[1]}", f"n {PAYLOADS[3]}"),
        backbone=f"clip {ALL}",
        rates=(1e-5, 1e-4),
    )
    for record in records:
        record.study = f"study {ALL}"
        record.warnings = [f"warning {ALL}"]
        record.leaks = [f"leak {ALL}"]
        record.provenance = {f"key {ALL}": f"value {ALL}", "packages": {f"p {ALL}": ALL}}
        record.undefined = {f"result.{ALL}": f"reason {ALL}"}
        record.result.drift[f"signal {ALL}"] = 0.5
        record.result.levels[f"level {ALL}"] = 0.5
        record.result.drift_per_block[f"blocks {ALL}"] = [0.1, 0.2, 0.3, 0.4]
        record.result.transfer[f"transfer {ALL}"] = record.result.transfer["cifar10"]
        record.result.extra[f"corruption.{ALL}.1.accuracy"] = 0.5
        record.result.extra[f"extra {ALL}"] = 0.5
        record.timing[f"time {ALL}"] = 1.0
        record.run_id = f"../{ALL} {record.run_id}"
    records[0] = records[0].model_copy(update={"status": "diverged", "reason": ALL})
    records[1] = records[1].model_copy(update={"status": "failed", "reason": ALL})
    return records


def test_no_text_of_a_record_or_a_study_runs(
    chromium: Any, tmp_path: Path, make_records: Callable[..., list[RunRecord]]
) -> None:
    folder = study_folder(tmp_path / "study", poisoned(make_records))
    study = {**yaml.safe_load(TEXT), "description": ALL}
    study["targets"] = [{"name": "x", "folder": ALL, "class_names": list(PAYLOADS)}]
    study["transfers"] = [{"name": "y", "builtin": "digits", "templates": [f"{PAYLOADS[0]} {{}}"]}]
    folder.spec_path.write_text(with_checksum(yaml.safe_dump(study, allow_unicode=True)))
    write_analysis(StudyFolder(folder.path))
    write_packed_page(folder)
    context = chromium.new_context()
    page = context.new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(folder.report_path.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    assert page.evaluate(TRY_EVERYTHING) is None
    assert errors == []
    assert [url for url in asked if not url.startswith(("data:", "blob:", "file:"))] == []
    for made in ("iframe", "main img[src=x]", "a[href^='javascript:']", "main script"):
        assert page.locator(made).count() == 0
    shown = page.locator("body").inner_text()
    assert PAYLOADS[2] in shown
    assert PAYLOADS[7] in shown
    page.locator("[data-table=cells] tbody td[data-runs]").first.click()
    assert PAYLOADS[0] in page.locator("#drawer tbody td").nth(1).inner_text()
    assert PAYLOADS[0] in page.locator(".answer h3").first.inner_text()
    context.close()


def test_the_payloads_would_run_in_a_page_that_escapes_nothing(
    chromium: Any, tmp_path: Path
) -> None:
    """Without this, the test above could not fail."""
    context = chromium.new_context()
    for i in (0, 2, 3):
        path = tmp_path / f"{i}.html"
        path.write_text(f'<p title="">{PAYLOADS[i]}</p>')
        page = context.new_page()
        page.goto(path.as_uri())
        page.wait_for_function("window.hit !== undefined", timeout=10_000)
        assert page.evaluate("window.hit") == i + 1
    context.close()
