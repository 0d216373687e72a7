"""Numbers as the page prints them: decimals, signs, significant digits, p values."""

from __future__ import annotations

import math
import re

from clipdrift.analysis.rows import UNDEFINED

MINUS = "−"
NBSP = "\u00a0"


def decimals_of(value: float) -> int:
    """Decimals that show three significant digits of a value, between 0 and 6.

    >>> decimals_of(0.0123), decimals_of(421.0)
    (4, 0)
    """
    if value == 0 or not math.isfinite(value):
        return 2
    return min(6, max(0, 2 - math.floor(math.log10(abs(value)))))


def fixed(value: float, decimals: int, *, signed: bool = False) -> str:
    """A fixed number of decimals with a true minus; never a negative zero.

    >>> fixed(-0.04, 1), fixed(2.0, 1, signed=True)
    ('0.0', '+2.0')
    """
    rounded = round(value, decimals) + 0.0
    sign = "+" if signed and rounded > 0 else ""
    return sign + f"{rounded:.{decimals}f}".replace("-", MINUS)


def significant(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """Three significant digits.

    >>> significant(0.0021349), significant(123456.0)
    ('0.00213', '1.23e+5')
    """
    if value == 0:
        return "0"
    sign = "+" if signed and value > 0 else ""
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent):+d}"
    return sign + text.replace("-", MINUS)


def unbroken(text: str) -> str:
    """Prose whose rates and percentages are not torn at the end of a line.

    >>> unbroken("at 1e-5, 95 %") == "at 1e-\\u20605, 95\\u00a0%"
    True
    """
    return re.sub(r"(\d) %", f"\\1{NBSP}%", re.sub(r"(\de)-(\d)", "\\1-\u2060\\2", text))


def p_text(p: float | None) -> str:
    """A p value; never rounded to 0.

    >>> p_text(0.0312), p_text(3e-9)
    ('0.031', '< 0.001')
    """
    if p is None:
        return UNDEFINED
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"
