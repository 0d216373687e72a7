r"""Tables for papers: `\input` them; they need the package booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from clipdrift.analysis.statistics.fit import DAMAGED, UNDERFITS
from clipdrift.report.answer import headline_table
from clipdrift.report.digits import NBSP
from clipdrift.report.listings import grid_table, main_metrics, paired_table, predictor_table
from clipdrift.report.source import Study
from clipdrift.report.tables import Column, Table, cell_table, word

SPECIALS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "ρ": r"$\rho$",
    "Δ": r"$\Delta$",
    "‖": r"$\Vert$",
    "₀": "$_0$",
    "₁": "$_1$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    NBSP: "~",
}
SIGNS = {UNDERFITS: r"$^\dagger$", DAMAGED: r"$^\ddagger$"}


def escape(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> print(escape("50% of a_b"))
    50\% of a\_b
    """
    return "".join(SPECIALS.get(char, char if char.isprintable() else " ") for char in text)


def latex_tables(study: Study) -> dict[str, str]:
    """File name -> LaTeX of the tables a paper needs; tables without rows are left out."""
    found: dict[str, Table | None] = {
        "cells.tex": cell_table(study, main_metrics(study), table_id="cells", caption="All cells"),
        "paired.tex": paired_table(study, "per_lr"),
        "paired_grid_mean.tex": paired_table(study, "grid_mean"),
        "paired_both_fit.tex": paired_table(study, "both_fit"),
        "predictors.tex": predictor_table(study),
        "grid_adequacy.tex": grid_table(study),
        "operating_points.tex": _operating(study),
    }
    return {name: latex(table) for name, table in found.items() if table is not None}


def _operating(study: Study) -> Table | None:
    """The headline tables of all targets as one, with the target in front."""
    found = [(place, headline_table(study, place, i)) for i, place in enumerate(study.places)]
    tables = [(place, table) for place, table in found if table is not None]
    if not tables:
        return None
    first = Column("Target", numeric=False)
    rows = [[word(study.title(place)), *row] for place, table in tables for row in table.rows]
    marks = [mark for _, table in tables for mark in table.marks]
    caption = "Each method at the learning rate of its best mean validation accuracy"
    return Table("operating_points", caption, [first, *tables[0][1].columns], rows, 2, marks)


def latex(table: Table) -> str:
    r"""One table as a `tabular` with its caption; rows that do not fit carry a sign."""
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    head = " & ".join(escape(column.label) for column in table.columns)
    body = [_line(row, mark, table.n_keys) for row, mark in _marked(table)]
    caption = escape(table.caption)
    for mark, sign in SIGNS.items():
        if mark in table.marks:
            caption += f". {sign}: {mark}"
    notes = escape("".join(map(str, table.note)))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}. {notes}}}" if notes else rf"\caption{{{caption}.}}",
            rf"\label{{tab:{table.id}}}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *_with_rules(body, [str(row[0]) for row in table.rows]),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _marked(table: Table) -> list[tuple[Sequence[object], str]]:
    marks = table.marks or [""] * len(table.rows)
    return list(zip(table.rows, marks, strict=True))


def _line(row: Sequence[object], mark: str, n_keys: int) -> str:
    cells = [escape(str(cell)) for cell in row]
    cells[n_keys - 1] += SIGNS.get(mark, "")
    return " & ".join(cells) + r" \\"


def _with_rules(lines: Sequence[str], groups: Sequence[str]) -> list[str]:
    """A thin rule wherever the first column changes."""
    out = []
    for i, line in enumerate(lines):
        if i and groups[i] != groups[i - 1]:
            out.append(r"\midrule")
        out.append(line)
    return out
