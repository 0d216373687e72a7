"""The pages of the documentation do what they say, and lead where they say."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from small_models import land_cover

import clipdrift
from clipdrift.cli.app import app
from clipdrift.cli.terminal import guarded

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob(".github/*.md"), *DOCS.rglob("*.md")])
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MADE = DOCS / "reference" / "made"
SHORTER = {
    "init": ["--quick"],
    **{
        name: ["--set", "learning_rates=[0.001]", "--set", "schedule.max_steps=5"]
        for name in ("check", "plan", "run")
    },
}
"""What is added to a page's commands, so that its studies are of a few runs of five steps."""
OFFLINE = {
    "init photos/ --out": "init photos/ --backbone mini-clip --transfer world --out",
    "init pairs.csv --out": "init pairs.csv --backbone mini-clip --transfer world --out",
    "openai/clip-vit-base-patch32": "mini-clip",
    "evaluate checkpoint/": "evaluate models/mine",
    "--transfers cifar100": "--transfers others/",
}
"""What a page names that is fetched or its reader's own -> what stands for it here."""


@pytest.fixture
def place(
    tmp_path: Path, cache_dir: Path, no_processes: None, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The reader's folder: photographs of three classes, some others, a table of captions."""
    names, images = ("beach", "forest", "town"), land_cover(120)
    for folder, of_class in (("photos", 24), ("others", 4)):
        for label, name in enumerate(names):
            (tmp_path / folder / name).mkdir(parents=True)
            for number, at in enumerate((images.labels == label).nonzero()[0].tolist() * 2):
                if number < of_class:
                    pixels = (images.pixels[at] * (1 - number / 100)).astype("uint8")
                    Image.fromarray(pixels).save(tmp_path / folder / name / f"{number:03}.png")
    rows = [f"{path},a picture of a {path.parts[1]}, {path.stem}" for path in _photos(tmp_path)]
    table = [f'{row.split(",", 1)[0]},"{row.split(",", 1)[1]}"' for row in rows]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,caption", *table]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPDRIFT_CACHE", str(cache_dir))
    return tmp_path


def _photos(place: Path) -> list[Path]:
    return sorted(path.relative_to(place) for path in place.glob("photos/*/*.png"))


def follow(page: str, *, but: str = "") -> None:
    """Type what a page says, but for one command."""
    names: dict[str, object] = {}
    for kind, block in BLOCK.findall((DOCS / page).read_text()):
        if kind == "python":
            exec(compile(block, page, "exec"), names)
        for line in block.splitlines() if kind == "sh" else ():
            if not but or not line.startswith(f"clipdrift {but} "):
                _type(line)


def _type(line: str) -> None:
    for given, here in OFFLINE.items():
        line = line.replace(given, here)
    if "runs/RUN" in line:
        line = line.replace("RUN", min(path.name for path in Path("results/runs").glob("*lora*")))
    program, *words = shlex.split(line, comments=True)
    assert program == "clipdrift", line
    words += SHORTER.get(words[0], [])
    ended = guarded(lambda: app(words, prog_name="clipdrift", standalone_mode=False))
    listed = words == ["export-model", "results/"]  # ends as what it is: no run was named
    assert ended == (2 if listed else 0), line


def run_notebook(name: str) -> None:
    cells = json.loads((DOCS / "notebooks" / f"{name}.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        assert not cell.get("outputs"), "clear the outputs: they are made when the site is built"
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), name, "exec"), names)


def test_a_first_study_and_a_paper_from_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    follow("tutorials/first-study.md")
    said = capsys.readouterr().out
    assert "3/3 land-cover-linear_probe" in said
    assert said.count("-> ") == 2  # what was chosen
    follow("tutorials/a-paper.md")
    assert list((place / "results").glob("tables/*.tex"))
    assert list((place / "results").glob("figures/*.pdf"))


@pytest.mark.usefixtures("no_figures")
def test_photographs_to_a_model_and_the_model_to_a_number(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    follow("tutorials/my-photographs.md")
    assert "forest/0" in capsys.readouterr().out
    assert (place / "models/mine/README.md").exists()
    assert len((place / "classes.csv").read_text().splitlines()) == 1 + len(_photos(place))
    follow("tutorials/my-checkpoint.md")
    said = capsys.readouterr().out
    assert "others" in said
    assert "weight_drift" in said


def test_captions(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Running it takes longer than all else here, and `test_pairs_study` does."""
    follow("tutorials/my-captions.md", but="run")
    assert "captions" in capsys.readouterr().out


def test_a_loop_of_ones_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    follow("tutorials/my-loop.md")
    kept = [int(k) for k in re.findall(r"epoch \d: (\d+) % kept", capsys.readouterr().out)]
    assert len(kept) == 3
    assert kept[-1] < 50  # as the page says of training on noise


@pytest.mark.usefixtures("no_figures")
def test_the_study_notebook(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_notebook("study")
    said = capsys.readouterr().out
    assert "8 runs measured, 0 already there" in said
    assert "differences: []" in said
    assert (place / "runs/first-look/retention.html").stat().st_size > 1e6
    assert (place / "runs/first-look/report.html").exists()


@pytest.mark.parametrize("name", ["checkpoint", "use"])
def test_notebook(name: str, place: Path) -> None:
    run_notebook(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """What Sphinx holds too, here without it: files, and headings as they are linked to."""
    for link in LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file() or file.parent == MADE, f"{page.name}: {link}"
        if heading and file.suffix == ".md" and file.parent != MADE:
            assert heading in _headings(file), f"{page.name}: {link}"


def _prose(page: Path) -> str:
    """A page without its blocks of code; of the site's included parts, nothing."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def _headings(page: Path) -> set[str]:
    found = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def test_every_public_name_has_its_place_in_the_reference() -> None:
    page = (DOCS / "reference" / "python.md").read_text()
    shown = re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE)
    assert sorted(shown) == sorted(clipdrift.__all__)


def test_every_study_of_the_results_is_in_the_gallery() -> None:
    gallery = (DOCS / "results" / "index.md").read_text()
    studies = {path.stem for path in (DOCS / "results").glob("*.md")} - {"index"}
    assert set(re.findall(r"^:link: (.+)$", gallery, re.MULTILINE)) == studies
