"""The report in a real browser: it draws, sorts, lists runs, and asks the network for nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from accessibility import serious_faults
from PIL import Image
from report_study import study_folder, write_packed_page
from synthetic_records import synthetic_records
from typer.testing import CliRunner

from clipdrift.cli.app import app
from clipdrift.records import StudyFolder

pytestmark = pytest.mark.browser
DRAWN = "html[data-drawn]"


class Page:
    """A page of a browser context that remembers whatever went wrong."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("data:", "blob:")):
            self.requests.append(request.url)

    def open(self, path: Path) -> Any:
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(DRAWN, timeout=60_000)
        return self.page


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Everything that a page can show."""
    records = synthetic_records(linear_probe=True, epochs=3)
    for record in records:
        accuracy = record.result.test_accuracy or 0.0
        extra = {"corruption.jpeg.3.accuracy": 0.8 * accuracy}
        for alpha in ("0", "0.5", "1"):
            part = f"interpolation.{alpha}"
            extra[f"{part}.test_accuracy"] = float(alpha) * accuracy
            extra[f"{part}.transfer.cifar10.accuracy"] = 0.62 - 0.2 * float(alpha)
        record.result.extra = extra
    folder = study_folder(tmp_path_factory.mktemp("study"), records)
    best = next(record for record in records if record.learning_rate == 1e-4)
    picture = folder.run_path(best.run_id) / "attention" / "probe_image_0.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (584, 128), "navy").save(picture)
    write_packed_page(folder)
    return folder


@pytest.fixture
def opened(chromium: Any, study: StudyFolder) -> Iterator[Callable[..., Page]]:
    contexts = []

    def open_with(**options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = Page(context)
        page.open(study.report_path)
        return page

    yield open_with
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def view(chromium: Any, study: StudyFolder) -> Iterator[Page]:
    """One page for tests that leave it as they found it: drawing all figures takes seconds."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    view = Page(context)
    view.open(study.report_path)
    yield view
    context.close()


@pytest.fixture
def page(view: Page) -> Any:
    return view.page


def test_every_figure_is_drawn_without_a_complaint_or_a_request(
    view: Page, study: StudyFolder
) -> None:
    counts = view.page.evaluate(
        """() => [...document.querySelectorAll(".plot")].map((plot) => [plot.id,
            plot.querySelectorAll("svg .scatterlayer .trace, svg .heatmaplayer image").length])"""
    )
    assert len(counts) > 20
    assert [name for name, drawn in counts if drawn == 0] == []
    assert view.complaints == []
    assert view.requests == [study.report_path.as_uri()]


def test_axe_finds_nothing_serious(
    view: Page, opened: Callable[..., Page], study: StudyFolder, tmp_path: Path
) -> None:
    """In the report, on a phone in the dark as well, and in the page that follows a study."""
    assert serious_faults(view.page) == []
    dark = opened(color_scheme="dark", viewport={"width": 390, "height": 844}).page
    assert serious_faults(dark) == []
    study.write_run_ids({record.run_id: record.identity for record in study.records()[0]})
    progress = tmp_path / "progress.html"
    done = CliRunner().invoke(app, ["watch", str(study.path), "--page", str(progress)])
    assert done.exit_code == 0, done.output
    dark.goto(progress.as_uri())
    assert serious_faults(dark) == []


def test_every_part_of_the_page_is_there(page: Any) -> None:
    linked = [a.get_attribute("href") for a in page.query_selector_all("nav a")]
    shown = [f"#{s.get_attribute('id')}" for s in page.query_selector_all("main section")]
    assert linked == shown
    for part in ("trade-off", "robustness", "attention", "predictors", "matched", "training"):
        assert f"#{part}" in shown
    assert page.locator("#way-0 .scatterlayer .trace").count() > 5
    image = page.locator("#attention img")
    image.scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    assert image.evaluate("(image) => image.naturalWidth") == 584


def test_the_keyboard_walks_the_numbers_of_a_table(page: Any) -> None:
    first = page.locator("[data-table=cells] tbody [data-runs]").first
    first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    place = page.evaluate(
        """() => { const cell = document.activeElement;
            return [cell.closest("table").dataset.table, cell.closest("tr").rowIndex,
                    cell.cellIndex]; }"""
    )
    assert place == ["cells", 2, first.evaluate("(cell) => cell.cellIndex") + 1]
    page.keyboard.press("Enter")
    assert page.locator("#drawer").is_visible()
    page.keyboard.press("Escape")


def test_a_heading_sorts_its_table_and_says_so(page: Any) -> None:
    head = page.locator("[data-table=cells] thead th", has_text="Test accuracy")
    column = head.evaluate("(cell) => cell.cellIndex")
    read = f"""() => [...document.querySelectorAll("[data-table=cells] tbody tr")]
        .map((row) => Number(row.cells[{column}].dataset.sort))"""
    before = page.evaluate(read)
    assert before != sorted(before)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(read) == sorted(before)
    assert head.get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert page.evaluate(read) == sorted(before, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"


def test_a_number_lists_the_runs_it_comes_from(page: Any) -> None:
    row = page.locator("[data-table=cells] tbody tr").first
    method, rate = row.locator("th").nth(1).inner_text(), row.locator("th").nth(2).inner_text()
    row.locator("td[data-runs]").nth(1).click()
    listed = page.locator("#drawer tbody tr")
    assert page.locator("#drawer").is_visible()
    assert listed.count() == 3
    assert {listed.nth(i).locator("td").nth(4).inner_text() for i in range(3)} == {"7", "11", "19"}
    for i in range(3):
        cells = listed.nth(i).locator("td").all_inner_texts()
        assert cells[2] == method.split()[0]
        assert cells[3] == rate.split()[0]
    page.keyboard.press("Escape")
    assert page.locator("#drawer").is_hidden()


def test_a_marker_lists_the_runs_of_its_cell(page: Any) -> None:
    marker = page.locator("#plane-0 .scatterlayer .point").first
    marker.scroll_into_view_if_needed()
    box = marker.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#plane-0 .hoverlayer .hovertext")
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#drawer:not([hidden])")
    assert page.locator("#drawer tbody tr").count() == 3
    page.keyboard.press("Escape")


def test_a_selector_redraws_the_layers_with_another_signal(page: Any) -> None:
    read = "document.getElementById('heat-0').data[0].z[0][0]"
    before = page.evaluate(read)
    page.select_option("[data-versions=layers]", "drift.cka")
    assert page.evaluate(read) != before
    assert page.evaluate("document.getElementById('heat-0').data[0].meta.metric") == "drift.cka"


def test_a_method_can_be_hidden_in_all_figures(page: Any) -> None:
    button = page.locator("[data-method=lora]").first
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    visible = page.evaluate(
        """() => document.getElementById("dose-0-0").data
            .filter((trace) => trace.visible !== false).map((trace) => trace.meta.method)"""
    )
    assert set(visible) == {"full_ft", "linear_probe"}
    button.click()


def test_a_filter_keeps_the_rows_that_hold_every_word(page: Any) -> None:
    page.fill("[data-filter=cells]", "digits lora")
    shown = page.locator("[data-table=cells] tbody tr:not([hidden])")
    assert shown.count() == 4
    assert all("digits" in text and "lora" in text for text in shown.all_inner_texts())
    page.fill("[data-filter=cells]", "")


def test_a_phone_needs_no_sideways_scrolling(opened: Callable[..., Page]) -> None:
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    edges = page.evaluate(
        """[...document.querySelectorAll(".plot .main-svg")]
            .map((svg) => svg.getBoundingClientRect().right)"""
    )
    assert max(edges) <= 390


LABELS = """() => [...document.querySelectorAll(".plot")].map((plot) => {
    const shown = (e) => getComputedStyle(e).visibility !== "hidden";
    const boxes = (what) => [...plot.querySelectorAll(what)].filter(shown).map((e) => {
        const box = e.getBoundingClientRect();
        return [box.left, box.top, box.right, box.bottom];
    });
    return [boxes(".textpoint"), boxes(".scatterlayer .point")];
})"""


def test_no_label_covers_another_or_a_marker(view: Page, opened: Callable[..., Page]) -> None:
    """As drawn, on a phone, and zoomed in to a part of a figure."""
    assert labels_that_are_clear(view.page) > 10
    assert labels_that_are_clear(opened(viewport={"width": 390, "height": 844}).page) > 10
    page = opened(viewport={"width": 1000, "height": 900}).page
    zoomed = """() => { for (const plot of document.querySelectorAll(".plot")) {
        if (!plot.querySelector(".textpoint")) continue;
        const [low, high] = plot.layout.xaxis.range;
        Plotly.relayout(plot, {"xaxis.range": [low, (low + high) / 2]});
    } }"""
    page.evaluate(zoomed)
    page.wait_for_timeout(500)
    assert labels_that_are_clear(page) > 5


def labels_that_are_clear(page: Any) -> int:
    """How many labels are shown, none of which meets another or a marker by half a pixel."""
    count = 0
    for labels, markers in page.evaluate(LABELS):
        count += len(labels)
        for i, one in enumerate(labels):
            for other in [*labels[:i], *markers]:
                across = min(one[2], other[2]) - max(one[0], other[0])
                down = min(one[3], other[3]) - max(one[1], other[1])
                assert min(across, down) < 0.5, (one, other)
    return count


def test_dark_mode_and_print_repaint_page_and_figures(
    view: Page, opened: Callable[..., Page], tmp_path: Path
) -> None:
    paint = """() => [getComputedStyle(document.body).backgroundColor,
        document.getElementById("dose-0-0").data.find((t) => t.name === "full_ft").line.color]"""
    light = view.page.evaluate(paint)
    view.page.emulate_media(color_scheme="dark")
    for _ in range(100):
        # The page's policy forbids eval, and with it playwright's own way to wait for a change.
        if view.page.evaluate(paint)[1] != light[1]:
            break
        view.page.wait_for_timeout(100)
    dark = view.page.evaluate(paint)
    assert light == ["rgb(255, 255, 255)", "#0072b2"]
    assert dark[0] == "rgb(21, 24, 28)"
    assert dark[1] != light[1]
    view.page.emulate_media(color_scheme="light")
    assert view.complaints == []

    opened_dark = opened(color_scheme="dark", viewport={"width": 1280, "height": 900})
    page = opened_dark.page
    assert page.evaluate(paint) == dark
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(paint)[1] == light[1]
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(paint)[1] == dark[1]
    data = page.pdf(path=str(tmp_path / "page.pdf"), format="A4", print_background=True)
    assert data.startswith(b"%PDF-")
    assert 5 < data.count(b"/Type /Page\n") < 60
    page.emulate_media(media="print", color_scheme="dark")
    seen = page.evaluate(
        """() => ({paper: getComputedStyle(document.body).backgroundColor,
            nav: getComputedStyle(document.querySelector("nav")).display,
            scroll: getComputedStyle(document.querySelector(".scroll")).overflowX})"""
    )
    assert seen == {"paper": "rgb(255, 255, 255)", "nav": "none", "scroll": "visible"}
    assert opened_dark.complaints == []


def test_everything_can_be_reached_by_the_keyboard(opened: Callable[..., Page]) -> None:
    page = opened().page
    kinds = set()
    for _ in range(150):
        page.keyboard.press("Tab")
        kinds.add(
            page.evaluate(
                """() => { const e = document.activeElement;
                    return e.closest("nav") ? "nav" : e.matches("[data-method]") ? "legend"
                        : e.matches("thead button") ? "sort" : e.matches("[data-runs]") ? "number"
                        : e.matches(".scroll") ? "scroll" : e.matches(".skip") ? "skip" : e.tagName;
                }"""
            )
        )
    assert {"skip", "nav", "number", "sort", "scroll", "legend"} <= kinds


DRILL = """() => {
    const drawer = document.getElementById("drawer");
    const found = [];
    const press = (plot, version) => {
        for (const [t, trace] of plot.data.entries()) {
            const rows = trace.type === "heatmap" ? trace.customdata : [trace.customdata || []];
            rows.forEach((row, i) => row.forEach((data, j) => {
                if (!data || !data[0]) return;
                drawer.hidden = true;
                plot.emit("plotly_click", { points: [{ customdata: data, data: trace }] });
                const cells = (row) => [...row.cells].map((cell) => cell.textContent);
                const heat = trace.type === "heatmap";
                found.push({
                    where: `${plot.id} ${version} ${t} ${i} ${j}`, meta: trace.meta || {},
                    x: heat ? null : trace.x[j], y: heat ? trace.z[i][j] : trace.y[j],
                    open: !drawer.hidden,
                    head: cells(drawer.querySelector("thead tr")),
                    rows: [...drawer.querySelectorAll("tbody tr")].map(cells),
                });
            }));
        }
    };
    for (const plot of document.querySelectorAll(".plot:not([data-group])")) press(plot, "");
    for (const select of document.querySelectorAll("[data-versions]")) {
        for (const name of [...select.options].map((option) => option.value)) {
            select.value = name;
            select.dispatchEvent(new Event("change"));
            const group = select.dataset.versions;
            for (const plot of document.querySelectorAll(`.plot[data-group="${group}"]`)) {
                press(plot, name);
            }
        }
    }
    return found;
}"""
"""Every point of every version of every figure, pressed: what it shows, and what is listed."""


def means_of(rows: list[list[str]], n: int) -> list[tuple[float, float]]:
    """Of each of the last n columns of a list: the mean of its numbers, and how far rounding may
    move it."""
    out = []
    for column in list(zip(*rows, strict=True))[-n:]:
        texts = [
            re.match(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", text.replace("−", "-")) for text in column
        ]
        numbers = [Decimal(found[0]) for found in texts if found]
        last = max(int(number.as_tuple().exponent) for number in numbers)
        out.append((float(fmean(numbers)), 0.5 * 10.0**last))
    return out


def test_every_point_of_every_figure_lists_the_values_whose_mean_it_is(page: Any) -> None:
    points = page.evaluate(DRILL)
    stats: Counter[str] = Counter()
    for point in points:
        stat = point["meta"].get("stat", "")
        stats[stat] += 1
        assert point["open"], point["where"]
        columns = len(point["head"]) - 6
        if not stat:  # no mean: a correlation, a difference of pairs
            assert columns == 0, point["where"]
            continue
        means = means_of(point["rows"], columns)
        shown = [point["y"]] if "x_metric" not in point["meta"] else [point["x"], point["y"]]
        if stat == "change":  # against clean images
            (clean, a), (damaged, b) = means
            means = [(damaged - clean, a + b)]
        if stat == "interpolated":
            shown = [point["x"], point["y"]]
            if len(means) == 3:  # retention from the accuracy and that of the untouched model
                reached, (kept, a), (before, b) = means
                means = [reached, (100 * kept / before, 100 * (a + b) / before)]
        for value, (mean, rounding) in zip(shown, means, strict=True):
            assert value == pytest.approx(mean, abs=1.001 * rounding), point
    assert stats.keys() == {
        "",
        "mean",
        "value",
        "block_mean",
        "epoch_mean",
        "change",
        "interpolated",
    }
    assert min(stats.values()) > 10
