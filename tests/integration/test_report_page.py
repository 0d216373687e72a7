"""The page: offline, safe for any name, every number with its runs, whatever was measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from report_study import study_folder, write_page
from synthetic_records import RATES, synthetic_records

from clipdrift.analysis.files import write_analysis
from clipdrift.analysis.rows import rate_text
from clipdrift.errors import RecordError
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.report import audit_report
from clipdrift.report.figures.history import history_charts
from clipdrift.report.page import render, script_json
from clipdrift.report.page_reader import NUMBER_HERE, Page, read_page
from clipdrift.report.read import read_study

SCRIPT = "<script>alert(1)</script>"
HOSTILE = f"{SCRIPT}\"'&"
CORRUPTIONS = ("gaussian_noise", "jpeg")
MakeRecords = Callable[..., list[RunRecord]]


def page_of(folder: StudyFolder) -> str:
    return render(read_study(folder))


def with_extras(records: list[RunRecord]) -> list[RunRecord]:
    """The same records with corrupted test parts and weights interpolated on a known line."""
    for record in records:
        accuracy = record.result.test_accuracy or 0.0
        for name, severity in product(CORRUPTIONS, (1, 3)):
            record.result.extra[f"corruption.{name}.{severity}.accuracy"] = accuracy / (
                1 + severity
            )
        for alpha in (0.0, 0.25, 1.0):
            key = f"interpolation.{alpha:g}"
            record.result.extra[f"{key}.test_accuracy"] = accuracy * alpha
            for name, reading in record.result.transfer.items():
                before, after = reading.baseline_accuracy or 0.0, reading.accuracy or 0.0
                between = before + alpha * (after - before)
                record.result.extra[f"{key}.transfer.{name}.accuracy"] = between
    return records


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    records = with_extras(synthetic_records(linear_probe=True, blocks=3))
    return page_of(study_folder(tmp_path_factory.mktemp("page"), records))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return read_page(html)


def test_nothing_is_fetched_from_anywhere(html: str) -> None:
    ours = html[: html.index('<script id="plotly">')] + html[html.rindex("<script>") :]
    fetched = re.findall(r"""(?:src|href|action|data|poster)\s*=\s*["']([^"']*)""", ours)
    assert fetched
    assert all(address.startswith(("#", "data:")) for address in fetched)
    assert not re.findall(r"@import|url\(\s*['\"]?(?!data:)", ours)
    assert "default-src 'none'" in html


def test_every_number_stands_with_its_runs(page: Page) -> None:
    """What is left of the texts without runs, less names, rates and stated levels, has no digit."""
    names = ["cifar10", "shapes100", "log10", "ERF@0.95", "SD (ddof 1)", "± 1 SD", "1 − cos"]
    rates = [rate_text(rate) for rate in (*RATES, 1e-3)]
    levels = (
        r"\b(95|90|80) % (CI|(bootstrap )?intervals?|of (the best|studies))"
        r"|within 2 pp|[125] pp|at least 95 %"
    )
    bare = []
    for item in page.items.values():
        text = item.text if not item.inside else ""
        for name in (*names, *rates):
            text = text.replace(name, "")
        text = re.sub(levels, "", text)
        if item.label.startswith("table runs") or "content" in item.given:
            continue  # a run's own row: its id, seed and rate are its name
        text = re.sub(r"epoch [01]|clipdrift \d\S*|Records [0-9a-f]{16}|seeds [\d, ]+", "", text)
        text = re.sub(r"(noise|jpeg) [13]|The first 60 of \d+ rows", "", text)
        if re.search(r"\d", text):
            bare.append((item.label, item.text))
    assert bare == [], bare


def test_the_runs_of_a_number_are_runs_of_the_page(page: Page) -> None:
    known = len(page.run_ids)
    assert known == 2 * (2 * 4 + 1) * 3
    origins = [item.given["data-runs"] for item in page.items.values() if "data-runs" in item.given]
    assert len(origins) > 500
    for origin in origins:
        ends = [int(part) for run in origin.split() for part in run.split("-")]
        assert ends == sorted(ends)
        assert ends[-1] < known


def test_a_cell_says_what_its_three_runs_say(page: Page, make_records: MakeRecords) -> None:
    cell = next(
        item
        for item in page.items.values()
        if item.label.startswith("table cells") and "digits lora 1e-5" in item.label
        and item.given.get("data-metric") == "test_accuracy"
    )  # fmt: skip
    runs = make_records(targets=("digits",), methods=("lora",), rates=(1e-5,), blocks=3)
    values = [100 * (run.result.test_accuracy or 0.0) for run in runs]
    mean = sum(values) / 3
    sd = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
    assert cell.text == f"{mean:.1f} ± {sd:.1f}"


def test_the_answer_names_best_rates_retention_and_limits(page: Page) -> None:
    answer = " ".join(i.text for i in page.items.values() if i.label.startswith("answer, li"))
    for words in (
        "full_ft reaches # on the test part at learning rate # (# seeds) and keeps # of the",
        "At equal validation accuracy, # %, near the highest that both reach, full_ft",
        "At equal learning rate both methods fit at # rates. There, full_ft keeps less of cifar10",
        "than lora: # on average over # (95 % CI # over # seeds); over the whole grid #",
        "cells are not beaten in both",
        "is the highest of the grid",
        "because they barely trained): full_ft at #; lora at #",
        "is found in 80 % of studies only from # to #",
    ):
        assert words in answer
    assert NUMBER_HERE in answer


def test_interpolated_weights_run_from_untouched_to_the_cell(page: Page) -> None:
    figures = page.data["figures"]
    lines = [t for t in figures["way-0"]["data"] if "interpolated" in t.get("name", "")]
    cells = {
        (trace["meta"]["method"], x, y)
        for trace in figures["plane-0"]["data"]
        if trace["meta"].get("stat") == "mean"
        for x, y in zip(trace["x"], trace["y"], strict=True)
    }
    assert len(lines) == len(cells) == 9
    for line in lines:
        assert (line["x"][0], line["y"][0]) == (0, pytest.approx(100))
        end = (line["meta"]["method"], line["x"][-1], line["y"][-1])
        assert any(end[0] == m and end[1:] == pytest.approx((x, y)) for m, x, y in cells)
        assert line["x"][1] == pytest.approx(0.25 * line["x"][-1])
        assert line["y"][1] == pytest.approx(100 + 0.25 * (line["y"][-1] - 100))


def test_corrupted_parts_show_accuracy_and_change_on_one_scale(page: Page) -> None:
    figures = {name: f for name, f in page.data["figures"].items() if name.startswith("robust")}
    assert len(figures) == 6
    traces = [figure["data"][0] for figure in figures.values()]
    assert {(t["zmin"], t["zmax"]) for t in traces} == {(traces[0]["zmin"], -traces[0]["zmin"])}
    heat = traces[0]
    assert heat["y"] == ["gaussian noise 1", "gaussian noise 3", "jpeg 1", "jpeg 3"]
    for column in range(4):
        clean = -2 * heat["z"][0][column]
        assert float(heat["text"][0][column]) == pytest.approx(clean / 2, abs=0.051)
        assert heat["z"][1][column] == pytest.approx(-0.75 * clean)


@pytest.mark.parametrize(
    "shape",
    [
        {"methods": ("lora",), "blocks": 2, "epochs": 1},
        {"rates": (1e-5,), "blocks": 2, "epochs": 1},
        {"seeds": (7,), "blocks": 2, "epochs": 1},
        {"seeds": (7,), "rates": (1e-5,), "methods": ("lora",)},
        {"epochs": 1, "blocks": 1, "seeds": (7, 11), "rates": RATES[:2]},
    ],
    ids=["one method", "one rate", "one seed", "one run", "one block"],
)
def test_small_designs_are_reported_and_audited(
    tmp_path: Path, make_records: MakeRecords, shape: dict[str, object]
) -> None:
    folder = study_folder(tmp_path / "study", make_records(**{"targets": ("digits",), **shape}))
    atomic_write(folder.report_path, page_of(folder))
    assert [d for d in audit_report(folder) if not d.place.endswith(".tex")] == []


def test_without_validation_accuracy_no_rate_is_chosen(
    tmp_path: Path, make_records: MakeRecords
) -> None:
    records = make_records(targets=("digits",), rates=(1e-5, 1e-4))
    for record in records:
        record.result.val_accuracy = None
        record.history = []
    folder = study_folder(tmp_path, records)
    atomic_write(folder.report_path, page_of(folder))
    page = read_page(folder.report_path.read_text(encoding="utf-8"))
    answer = " ".join(i.text for i in page.items.values() if i.label.startswith("answer, li"))
    assert "full_ft reaches from # (at 1e-5) to # (at 1e-4): test accuracy." in answer
    assert "lora keeps from # (at 1e-4) to # (at 1e-5): retention, cifar10." in answer
    rows = [i for i in page.items if i.startswith("table headline-0, row") and "column 1" in i]
    assert len(rows) == 1 + 4
    assert "None" not in {item.text for item in page.items.values()}
    assert [d for d in audit_report(folder) if not d.place.endswith(".tex")] == []


def test_bad_records_are_left_out_and_said(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(targets=("digits",), rates=(1e-5, 1e-4))
    records[0] = records[0].model_copy(update={"status": "diverged", "reason": HOSTILE})
    records[2].fingerprints["data"] = "other"
    records[4].result.drift["cls_entropy_pct"] = None
    records[4].undefined["drift.cls_entropy_pct"] = "not measured"
    twin = records[7].model_copy(deep=True, update={"run_id": "twin"})
    twin.result.test_accuracy = 0.01
    other = make_records(targets=("digits",), rates=(1e-5, 1e-4), backbone="other-clip")
    folder = study_folder(tmp_path, [*records, twin, *other])
    atomic_write(folder.record_path("new"), '{"schema_version": 99}')
    write_analysis(folder)
    page = read_page(page_of(folder))
    answer = [item.text for item in page.items.values() if item.label.startswith("answer, li")]
    for words in (
        "Duplicated run that contradicts itself, left out",
        "schema version 99, newer than 2. Update clipdrift",
        f"diverged: {HOSTILE}",
        "Matched pairs dropped: digits · 1e-5. full_ft against lora: no matched run of full_ft",
        "full_ft against lora: different data",
        "drift.cls_entropy_pct: not measured",
        "mini-clip, other-clip: analysed apart, never pooled",
    ):
        assert sum(words in text for text in answer) == 1, words
    titles = [item.text for item in page.items.values() if item.label.startswith("answer, h3")]
    assert {"digits · mini-clip", "digits · other-clip"} <= set(titles)
    verdicts = {i.label: i.text for i in page.items.values() if "matchedness" in i.label}
    assert verdicts["table matchedness, row 2 (mini-clip data), Verdict"] == "differs"
    runs = {run[0]: run[5] for run in page.data["runs"]}
    assert runs[records[0].run_id] == "diverged"


def test_equal_values_have_sd_zero_and_no_test(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(targets=("digits",), rates=(1e-5, 1e-4))
    for record in records:
        record.result.test_accuracy = 0.9
    page = read_page(page_of(study_folder(tmp_path, records)))
    cells = [i for i in page.items.values() if i.given.get("data-metric") == "test_accuracy"]
    assert {item.text for item in cells if item.given["data-stat"] == "mean_sd"} >= {"90.0 ± 0.0"}
    tested = [
        item
        for item in page.items.values()
        if item.label.startswith("table paired-per-lr, row 1 ") and item.label.endswith("p (t)")
    ]
    assert [(item.text, item.given["title"]) for item in tested] == [
        ("–", "the differences do not vary: no t test")
    ]


def test_hostile_names_are_text_in_page_and_data(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(targets=(HOSTILE,), methods=(SCRIPT, "b"), backbone=f"clip{SCRIPT}")
    for record in records:
        record.study = HOSTILE
        record.warnings = [HOSTILE]
        record.provenance = {HOSTILE: {HOSTILE: HOSTILE}}
        record.result.drift[HOSTILE] = 0.5
        record.result.transfer[HOSTILE] = record.result.transfer["cifar10"]
        record.result.drift_per_block[SCRIPT] = [0.1] * 4
        record.result.extra[f"corruption.{HOSTILE}.1.accuracy"] = 0.5
    html = page_of(study_folder(tmp_path, records))
    assert SCRIPT not in html
    assert html.count("<script") == html.count("</script>") == 3
    page = read_page(html)
    assert page.items["head, h1 1"].text == HOSTILE
    assert page.data["runs"][0][1] == HOSTILE
    # Plotly reads a subset of HTML in every text of a figure; only `meta` is not drawn.
    drawn = drawn_texts(page.data["figures"])
    assert any("&lt;script&gt;" in text for text in drawn)
    assert [text for text in drawn if re.search(r"<(?!/?b>|br>|/?extra>)", text)] == []


def shown_of_points(value: Any) -> Any:
    """[runs, label, names] -> [runs, label], in lines and in fields of points."""
    if not isinstance(value, list):
        return value
    if len(value) == 3 and isinstance(value[0], str) and isinstance(value[2], list):
        return value[:2]
    return [shown_of_points(one) for one in value]


def drawn_texts(value: object) -> list[str]:
    """All but `meta` and the names of what a point lists, which no template of a figure has."""
    if isinstance(value, dict):
        rest = {key: item for key, item in value.items() if key != "meta"}
        rest["customdata"] = shown_of_points(rest.get("customdata"))
        return [text for item in rest.values() for text in drawn_texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in drawn_texts(item)]
    return [value] if isinstance(value, str) else []


def test_script_data_cannot_close_its_element() -> None:
    text = script_json({"a": "</script><!--", "b": "\u2028", "c": float("nan"), "d": 1 / 3})
    assert text == ('{"a":"\\u003c/script\\u003e\\u003c!--","b":"\\u2028","c":null,"d":0.3333333}')


def test_a_report_of_changed_records_is_refused(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(targets=("digits",), rates=(1e-5,))
    folder = study_folder(tmp_path, records)
    records[0].result.test_accuracy = 0.5
    atomic_write(folder.record_path(records[0].run_id), records[0].to_json())
    with pytest.raises(RecordError, match="an analysis of the records in the folder, got one of"):
        read_study(folder)


def test_the_report_never_imports_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, clipdrift.report as r\n"
        "for m in pkgutil.walk_packages(r.__path__, 'clipdrift.report.'):\n"
        "    importlib.import_module(m.name)\n"
        "print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_three_methods_are_ranked_by_what_is_held_equal(
    make_records: MakeRecords, tmp_path: Path
) -> None:
    methods = ("full_ft", "lora", "third")
    records = make_records(
        methods=methods, targets=("digits",), rates=RATES[:3], seeds=(7, 11), blocks=1, epochs=1
    )
    folder = study_folder(tmp_path, records)
    page = read_page(write_page(folder).read_text(encoding="utf-8"))
    ranks = {
        item.given["data-metric"]: item.text
        for item in page.items.values()
        if item.label.startswith("table ranking,")
        and item.given.get("data-metric", "").endswith(".rank")
    }
    rows = json.loads(folder.analysis_path.read_text())["ranking"]
    shown = {f"ranking[{i}].rank": str(r["rank"]) for i, r in enumerate(rows) if r["rank"]}
    assert {name: text for name, text in ranks.items() if name in shown} == shown
    assert audit_report(folder) == []


def test_penalties_are_drawn_over_epochs_for_the_methods_that_have_them(
    make_records: MakeRecords, tmp_path: Path
) -> None:
    records = make_records(targets=("digits",), rates=(1e-5,), seeds=(7, 11), blocks=1)
    for record in records:
        for entry in record.history[1:] if record.method == "full_ft" else []:
            entry.penalties = {"l2_sp": entry.epoch * (0.25 if record.seed == 7 else 0.75)}
    study = read_study(study_folder(tmp_path / "study", records))
    (place,) = study.places
    held, free = history_charts(study, place, "history")
    (line,), shape = held.variants["penalty.l2_sp"]
    assert (line["x"], line["y"]) == ([1, 2], [0.5, 1.0])
    assert shape["yaxis"]["title"]["text"] == "Penalty l2 sp, before its weight"
    assert [note["text"] for note in shape["annotations"]] == []
    (empty,), shape = free.variants["penalty.l2_sp"]
    assert empty["x"] == []
    assert [note["text"] for note in shape["annotations"]] == ["not of this method"]


def test_long_answers_are_folded_and_short_ones_are_not(
    make_records: MakeRecords, tmp_path: Path, html: str
) -> None:
    many = make_records(targets=("digits",), rates=RATES[:2], seeds=(7, 11), blocks=1, epochs=1)
    for record in many:
        for number in range(24):
            record.result.transfer[f"set{number}"] = record.result.transfer["cifar10"]
    folded = page_of(study_folder(tmp_path, many))
    opening = '<details><summary>In words</summary><ul class="sentences">'
    assert folded.count(opening) == 1
    assert "In words" not in html
    assert '<ul class="sentences">' in html
