"""The page: everything a study has to show, as one HTML file that needs nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from clipdrift.analysis.rows import rate_text
from clipdrift.report.blocks import Charts, built, inside, is_there
from clipdrift.report.digits import unbroken
from clipdrift.report.figures.chart import Chart
from clipdrift.report.figures.layers import scales
from clipdrift.report.listed import listed
from clipdrift.report.metrics import metric
from clipdrift.report.palette import DARK, LIGHT, Theme, rate_colour
from clipdrift.report.printed import DERIVED, Printed, Sentence
from clipdrift.report.sections import SECTIONS
from clipdrift.report.source import Study

# Paths of the marker shapes in a box from -8 to 8, for the legend.
SHAPES = {
    "circle": "M5 0A5 5 0 1 1 -5 0A5 5 0 1 1 5 0Z",
    "square": "M-4.5 -4.5H4.5V4.5H-4.5Z",
    "diamond": "M0 -6L6 0L0 6L-6 0Z",
    "triangle-up": "M0 -6L6 4.5H-6Z",
    "cross": "M-2 -6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",
    "star": "M0 -6.5L1.6 -2H6.2L2.5 .8L3.9 5.3L0 2.6L-3.9 5.3L-2.5 .8L-6.2 -2H-1.6Z",
    "hexagon": "M0 -6L5.2 -3V3L0 6L-5.2 3V-3Z",
    "x": "M-5 -3L-3 -5L0 -2L3 -5L5 -3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0Z",
}
WASH = {"light": "#f5f6f7", "dark": "#1e2328"}


def render(study: Study) -> str:
    """The report as HTML text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("clipdrift.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    source = environment.loader
    assert source is not None
    raw = {
        name: Markup(source.get_source(environment, file)[0])
        for name, file in (("css", "report.css"), ("script", "report.js"))
    }
    environment.globals.update(
        metric=metric, looks=study.looks, shapes=SHAPES, rates=_rates(study), is_there=is_there
    )
    found = built(SECTIONS, study)
    blocks = [block for one in found for block in inside(one.blocks)]
    charts = [chart for block in blocks if isinstance(block, Charts) for chart in block.found]
    lacking = [getattr(b, "otherwise", "") for b in blocks if not is_there(b)]
    return environment.get_template("report.html").render(
        **raw,
        plotly=Markup(get_plotlyjs()),
        colours=Markup(_colours()),
        payload=Markup(script_json(_payload(study, charts))),
        title=_title(study),
        description=study.spec.description if study.spec else "",
        facts=_facts(study),
        sections=[
            one._replace(lead=Markup(one.lead)) for one in found if any(map(is_there, one.blocks))
        ],
        several_seeds=study.several_seeds,
        absent=", ".join(filter(None, lacking)),
        records_hash=study.analysis["generated_from"]["records_hash"][:16],
        version=version("clipdrift"),
    )


def script_json(value: Any) -> str:
    """JSON that cannot end or open a script element, whatever names it holds.

    >>> script_json({"name": "</script><!--"})
    '{"name":"\\\\u003c/script\\\\u003e\\\\u003c!--"}'
    """
    body = json.dumps(_rounded(value), separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        body = body.replace(char, f"\\u{ord(char):04x}")
    return body


def _rounded(value: Any) -> Any:
    """Seven significant digits are more than a figure shows; undefined is null."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def _payload(study: Study, charts: Sequence[Chart]) -> dict[str, Any]:
    """What the page's script reads: figures, themes, and the runs behind the numbers."""
    figures: dict[str, Any] = {}
    for chart in charts:
        if chart.variants:
            figures[chart.id] = {
                "versions": {
                    name: {"data": traces, "layout": shape}
                    for name, (traces, shape) in chart.variants.items()
                }
            }
        else:
            figures[chart.id] = {"data": chart.traces, "layout": chart.layout}
    shown = listed(study)
    return {
        "figures": figures,
        "themes": {"light": LIGHT, "dark": DARK},
        "scales": {
            name: [metric(name).with_unit(scale.low), metric(name).with_unit(scale.high)]
            for name, scale in scales(study).items()
        },
        "runs": [
            [r.run_id, r.target, r.method, rate_text(r.learning_rate), r.seed, r.status]
            for r in sorted(study.listed, key=lambda r: study.index.ids.index(r.run_id))
        ],
        "values": shown.values,
        "labels": shown.labels,
        "pictures": study.pictures,
    }


def _title(study: Study) -> str:
    names = dict.fromkeys(record.study for record in study.records)
    return study.spec.name if study.spec else ", ".join(names) or study.folder.path.name


def _facts(study: Study) -> list[Sentence]:
    matched = [name for name, look in study.looks.items() if look.role == "matched"]
    references = [name for name in study.looks if name not in matched]
    seeds = sorted({record.seed for record in study.usable})
    used = study.index.encode(record.run_id for record in study.usable)
    everything = study.index.encode(record.run_id for record in study.records)
    facts = [
        f"backbone {', '.join(study.backbones)}",
        f"targets {', '.join(dict.fromkeys(place.target for place in study.places))}",
        f"methods {', '.join(matched) or '–'}",
        f"references {', '.join(references)}" if references else "",
        f"seeds {', '.join(map(str, seeds))}" if len(seeds) <= 10 else f"{len(seeds)} seeds",
    ]
    counts: Sentence = [
        Printed(str(len(study.usable)), "", DERIVED, used),
        " runs used of ",
        Printed(str(len(study.records)), "", DERIVED, everything),
    ]
    origin = study.analysis["generated_from"]
    if origin["n_to_do"]:
        counts += [f", {origin['n_planned']} planned, {origin['n_to_do']} to do"]
    others: list[Sentence] = [[fact] for fact in facts if fact]
    return [counts, *others]


def _rates(study: Study) -> list[tuple[str, str]]:
    """Colours of the learning rates of matched methods, weak to strong."""
    rates = sorted({r.learning_rate for r in study.usable if r.role == "matched"})
    return [(rate_colour(i, len(rates)), rate_text(rate)) for i, rate in enumerate(rates)]


def _colours() -> str:
    """The palettes as CSS variables."""
    light, dark = _variables(LIGHT, WASH["light"]), _variables(DARK, WASH["dark"])
    return (
        f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        f":root.printing{{{light}}}"
    )


def _variables(theme: Theme, wash: str) -> str:
    stops = ",".join(f"{colour} {100 * at:g}%" for at, colour in theme["diverging"])
    plain = ";".join(f"--{name}:{value}" for name, value in theme.items() if name != "diverging")
    return f"{plain};--wash:{wash};--diverging:linear-gradient(90deg,{stops})"
