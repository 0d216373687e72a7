"""What the report writes beside the page: LaTeX tables, figures for papers, attention pictures."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from report_study import study_folder, write_packed_page

from clipdrift.records import RunRecord, StudyFolder
from clipdrift.report import write_report
from clipdrift.report.attention import MAX_IMAGES, attention_images
from clipdrift.report.latex import escape, latex, latex_tables
from clipdrift.report.palette import DARK, LIGHT, SYMBOLS, looks
from clipdrift.report.read import read_study
from clipdrift.report.static import slug
from clipdrift.report.tables import Column, Table, word

MakeRecords = Callable[..., list[RunRecord]]
HOSTILE = r"\input{/etc/passwd} 50% $x^2$ a_b & #1 ~ {"


def test_latex_prints_every_character_as_it_is() -> None:
    text = escape(HOSTILE)
    plain = re.sub(r"\\(textbackslash|textasciicircum|textasciitilde)\{\}", "", text)
    assert re.sub(r"\\[&%$#_{}]", "", plain) == "input/etc/passwd 50 x2 ab  1  "
    assert text.startswith(r"\textbackslash{}input\{/etc/passwd\} 50\%")


def test_a_latex_table_is_complete_and_marks_what_does_not_fit() -> None:
    columns = [Column("Method", numeric=False), Column("Test accuracy (%)")]
    rows = [[word("lora_8"), word("91.3 ± 0.3")], [word("full"), word("\u22121.0")]]
    text = latex(Table("t", "50% of cells", columns, rows, 1, ["underfits", "damaged"], ["A_b."]))
    assert r"\begin{tabular}{lr}" in text
    assert r"Method & Test accuracy (\%) \\" in text
    assert r"lora\_8$^\dagger$ & 91.3 $\pm$ 0.3 \\" in text
    assert r"full$^\ddagger$ & $-$1.0 \\" in text
    assert r"\caption{50\% of cells. $^\dagger$: underfits. $^\ddagger$: damaged. A\_b.}" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_latex_tables_of_hostile_names_have_no_command_of_theirs(
    tmp_path: Path, make_records: MakeRecords
) -> None:
    records = make_records(targets=(HOSTILE,), methods=(HOSTILE, "b"), rates=(1e-5,))
    tables = latex_tables(read_study(study_folder(tmp_path, records)))
    assert {"cells.tex", "paired.tex", "operating_points.tex"} <= set(tables)
    for text in tables.values():
        assert r"\input" not in text
        for line in text.splitlines():
            unescaped = re.findall(r"(?<!\\)[%#]", line)
            assert unescaped == [], line


def test_all_files_are_written_and_figures_can_be_read(
    tmp_path: Path, make_records: MakeRecords
) -> None:
    records = make_records(targets=("../up", "digits"), rates=(1e-5, 1e-4), blocks=2)
    folder = study_folder(tmp_path / "study", records)
    assert write_report(folder) == folder.report_path
    names = sorted(path.name for path in (folder.path / "figures").iterdir())
    stems = ["dose-response-0-up", "dose-response-1-digits", "layers-0-up", "layers-1-digits"]
    stems += ["plane-0-up", "plane-1-digits"]
    assert names == sorted(f"{stem}.{ending}" for stem in stems for ending in ("png", "pdf"))
    for name in names:
        data = (folder.path / "figures" / name).read_bytes()
        if name.endswith(".pdf"):
            assert data.startswith(b"%PDF-")
            assert b"CreationDate" not in data
        else:
            with Image.open(io.BytesIO(data)) as image:
                assert len(image.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 20
    assert sorted(p.name for p in tmp_path.iterdir()) == ["study"]


def test_the_same_study_gives_the_same_page(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(targets=("digits",), rates=(1e-5,), seeds=(7, 11), blocks=1)
    pages = []
    for order in (records, records[::-1]):
        folder = study_folder(tmp_path / "study", order)
        pages.append(write_packed_page(folder).read_bytes())
        shutil.rmtree(folder.path)
    assert pages[0] == pages[1]


@pytest.fixture
def pictured(tmp_path: Path, make_records: MakeRecords) -> StudyFolder:
    records = make_records(targets=("digits",), rates=(1e-5, 1e-4), blocks=1)
    for number, record in enumerate(records):
        record.run_id = f"run-{number}"
    folder = study_folder(tmp_path, records)
    for record in records:
        path = folder.run_path(record.run_id) / "attention"
        path.mkdir()
        for image in range(8):
            Image.new("RGB", (16, 8), (image, 0, 0)).save(path / f"probe_image_{image}.png")
    return folder


def test_pictures_show_each_method_at_its_best_rate_on_the_same_images(
    pictured: StudyFolder,
) -> None:
    images, omitted = attention_images(read_study(pictured))
    assert len(images) == MAX_IMAGES == 12
    assert omitted == 12 * 8 - 12
    captions = [image.caption for image in images]
    assert captions[0] == "digits · full_ft at 1e-4, seed 7 · probe image 0"
    for method in ("full_ft", "lora"):
        own = [caption.split("probe image ")[1] for caption in captions if method in caption]
        assert own == [str(i) for i in range(6)]
    assert all(image.uri.startswith("data:image/png;base64,iVBOR") for image in images)


def test_what_is_no_small_picture_is_left_out(pictured: StudyFolder) -> None:
    for path in pictured.runs_path.glob("*/attention/*.png"):
        path.write_bytes(b"<svg onload=alert(1)>")
    big = next(pictured.runs_path.glob("*/attention"))
    (big / "big.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200_000))
    assert attention_images(read_study(pictured)) == ([], 12 * 8 + 1)


def test_file_names_are_safe_and_distinct() -> None:
    assert slug("../../etc", 0) == "0-etc"
    assert slug("\u00e9\u00e8", 3) == "3"
    assert slug("a" * 99, 1) == "1-" + "a" * 40


def test_methods_differ_by_marker_too_and_colours_are_legible() -> None:
    named = looks([(f"m{i:02d}", "matched") for i in range(16)])
    pairs = {(look.colour, look.symbol) for look in named.values()}
    assert len(pairs) == 16
    assert len({named[f"m{i:02d}"].symbol for i in range(8)}) == len(SYMBOLS)
    for theme in (LIGHT, DARK):
        for token in ("ink", "muted", *(f"m{i}" for i in range(8))):
            # WCAG 2.1: 4.5 for text, 3 for graphics.
            wanted = 4.5 if token in ("ink", "muted") else 3.0
            assert contrast(theme[token], theme["paper"]) >= wanted, token


def contrast(one: str, two: str) -> float:
    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
