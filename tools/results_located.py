"""The tables of a results page about edits of finished runs; `results_tables` makes the others."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from results_tables import Row, number, pick, spread, table


def between(row: Row, low: str, high: str, form: str = "{:+.1f}") -> str:
    """An interval; a dash where it is undefined."""
    return "–" if row[low] is None else f"{form} to {form}".format(row[low], row[high])


def change(row: Row) -> list[str]:
    """What an edit changes, with its interval where seeds differ."""
    return [f"{row['change_pp']:+.1f}", between(row, "ci_low", "ci_high")]


def places(analysis: Row, target: str) -> str:
    """The part of the image encoder that carries what each cell lost, or why none is named."""
    kept = {
        (row["method"], row["learning_rate"]): spread(row, 100)
        for row in pick(analysis["cells"], target=target, metric="test_accuracy")
    }
    lines = [
        [
            row["method"],
            f"{row['learning_rate']:g}",
            kept[row["method"], row["learning_rate"]],
            row["transfer"],
            number(row["lost_pp"]),
            row["carried_by"],
            number(row["share"], "{:.2f}"),
            number(row["p_holm"], "{:.2g}"),
            row["reason"] or "",
        ]
        for row in pick(analysis["loss_places"], target=target)
    ]
    head = ["method", "LR", "test accuracy", "set", "lost, pp", "carried by", "share", "Holm p"]
    return table([*head, "why not more"], lines)


def edits(analysis: Row, target: str, method: str, rate: str, transfer: str) -> str:
    """Every part of one cell put back, and moved alone: what it does to a set and to the target."""
    own = [
        row
        for row in pick(analysis["located"], target=target, method=method, head=None)
        if row["learning_rate"] == float(rate)
    ]
    at = {(row["edit"], row["block"], row["kind"], row["dataset"]): row for row in own}
    lines = []
    for row in pick(own, edit="revert", dataset=transfer):
        place = (row["block"], row["kind"])
        alone = at["graft", *place, transfer]
        there = at.get(("revert", *place, target))
        lines.append(
            [
                row["kind"] if row["block"] is None else f"{row['block']}, {row['kind']}",
                *change(row),
                number(row["control_pp"], "{:+.1f}"),
                *change(alone),
                number(alone["control_pp"], "{:+.1f}"),
                number(row["retention_pct"]),
                "–" if there is None else number(there["change_pp"], "{:+.1f}"),
            ]
        )
    head = ["part", "put back, pp", "95 % interval", "random, pp", "moved alone, pp"]
    head += ["95 % interval", "random, pp", "kept with it put back, %", "target accuracy then, pp"]
    return table(head, lines)


def patterns(analysis: Row, target: str, transfer: str) -> str:
    """What a model gains or loses with the attention pattern of the other one in all blocks."""
    lines = []
    for row in pick(analysis["loss_places"], target=target, transfer=transfer):
        cell = {key: row[key] for key in ("target", "method", "learning_rate")}
        found = {
            side["edited"]: side
            for side in pick(
                analysis["located"],
                edit="attention_other_model",
                block=None,
                dataset=transfer,
                **cell,
            )
        }
        if found:
            line = [row["method"], f"{row['learning_rate']:g}", number(row["lost_pp"])]
            for side in ("adapted", "untouched"):
                line += change(found[side])
            share = number(row["attention_share"], "{:.2f}")
            lines.append([*line, share, between(row, "attention_low", "attention_high", "{:.2f}")])
    head = ["method", "LR", "lost, pp", "adapted with the untouched pattern, pp", "95 % interval"]
    head += ["untouched with the adapted pattern, pp", "95 % interval", "share", "95 % interval"]
    return table(head, lines)


def patched(analysis: Row, target: str, method: str, rate: str, transfer: str, *edits: str) -> str:
    """Of one cell, block by block, what patches of both models change; `heads` for single heads."""
    found: dict[int | None, dict[str, Row]] = {}
    for row in pick(analysis["located"], target=target, method=method, dataset=transfer):
        edit = "heads" if row["head"] else row["edit"]
        if edit in edits and row["learning_rate"] == float(rate):
            what = row["kind"] if row["kind"] != "attention" else edit.removeprefix("attention_")
            what = f"head {row['head']}" if row["head"] else what.replace("_", " ")
            found.setdefault(row["block"], {})[f"{row['edited']}: {what}"] = row
    names = list(dict.fromkeys(name for own in found.values() for name in own))
    lines = [
        [str(block or "all"), *(f"{own[n]['change_pp']:+.1f}" if n in own else "–" for n in names)]
        for block, own in sorted(found.items(), key=lambda item: item[0] or 0)
    ]
    return table(["block", *names], lines)


def cumulative(analysis: Row, target: str, method: str, rate: str, transfer: str) -> str:
    """What is kept, and accuracy on the target, as the model is put back from either end."""
    own = [
        row
        for row in pick(analysis["located"], target=target, method=method)
        if row["learning_rate"] == float(rate) and row["edit"].startswith("revert_")
    ]
    lines = []
    for block in sorted({row["block"] for row in own}):
        line = [str(block)]
        for edit in ("revert_below", "revert_above"):
            for name in (transfer, target):
                (row,) = pick(own, edit=edit, block=block, dataset=name)
                line.append(f"{100 * row['score']:.1f} ({row['change_pp']:+.1f})")
        lines.append(line)
    head = ["block", f"{transfer}, put back up to it", "target", f"{transfer}, put back from it on"]
    return table([*head, "target"], lines)


def rescaled(analysis: Row, target: str, transfer: str, *asked: str) -> str:
    """What rescalings of a run reach and keep, and how far from plain interpolation that is.

    Args:
        asked: cells as full_ft@1e-3.
    """
    wanted = {(name, float(rate)) for name, _, rate in (cell.partition("@") for cell in asked)}
    accuracy, kept = "test_accuracy", f"transfer.{transfer}.retention_pct"
    cells: dict[tuple[str, float], dict[tuple[str, float], dict[str, Row]]] = {}
    for row in pick(analysis["after_training"], target=target):
        named = (row["method"], row["learning_rate"]) in wanted
        if named and row["kind"] != "soup" and row["metric"] in (accuracy, kept):
            cell = cells.setdefault((row["method"], row["learning_rate"]), {})
            cell.setdefault((row["kind"], row["scale"]), {})[row["metric"]] = row
    lines = []
    for (method, rate), made in cells.items():
        first = next(iter(made.values()))
        trained = 100 * first[accuracy]["cell_mean"], first[kept]["cell_mean"]
        means = {key: (100 * own[accuracy]["mean"], own[kept]["mean"]) for key, own in made.items()}
        lines.append([method, f"{rate:g}", "as trained", *_plane(trained), "–", "–"])
        for key, point in means.items():
            own = made[key][kept]
            gap = number(own["above_plain"], "{:+.1f}")
            interval = between(own, "above_plain_low", "above_plain_high")
            lines.append([method, f"{rate:g}", own["weights"], *_plane(point), gap, interval])
    head = ["method", "LR", "weights", "test accuracy, %", "kept, %"]
    head += ["kept, less plain interpolation at equal accuracy, pp", "95 % interval"]
    return table(head, lines)


def beaten(analysis: Row) -> str:
    """How often each rescaling keeps more than plain interpolation, over cells and sets."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in analysis["after_training"]:
        if row["metric"].endswith(".retention_pct") and row["kind"] not in ("soup", "scaled"):
            found.setdefault((row["target"], row["weights"]), []).append(row)
    lines = []
    for (target, weights), own in sorted(found.items()):
        gaps = [row for row in own if row["above_plain"] is not None]
        known = [row for row in gaps if row["above_plain_low"] is not None]
        values = [row["above_plain"] for row in gaps]
        line = [target, weights, f"{len(gaps)} of {len(own)}"]
        line += [number(f(values) if values else None, "{:+.1f}") for f in (min, median, max)]
        line += [
            str(len(known)),
            str(sum(row["above_plain_low"] > 0 for row in known)),
            str(sum(row["above_plain_high"] < 0 for row in known)),
        ]
        lines.append(line)
    head = ["target", "weights", "met", "least, pp", "median, pp", "most, pp", "with an interval"]
    return table([*head, "of these above 0", "below 0"], lines)


def _plane(point: tuple[float, float]) -> list[str]:
    return [f"{value:.1f}" for value in point]


TABLES: dict[str, Callable[..., str]] = {
    "places": places,
    "edits": edits,
    "patterns": patterns,
    "patched": patched,
    "cumulative": cumulative,
    "rescaled": rescaled,
    "beaten": beaten,
}
"""What a page asks for by name, beside those of `results_tables`."""
