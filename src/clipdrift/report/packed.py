"""A page made small: its scripts and long tables compressed inside of it, and opened by its script.

Plotly alone is 4.8 MB; deflated and written in base64 it is 2. A browser opens it in a fraction of
a second (DecompressionStream, in every browser since 2023).
"""

from __future__ import annotations

import base64
import re
import zlib

LONG = 20_000
"""Characters from which on rows of a table are packed: shorter ones are read without scripts."""
MOST = 200_000_000
"""Characters that a packed part may come to: a page may be anyone's."""
FORMS = {
    "rows": ("<tbody>{}</tbody>", '<tbody data-packed="{}"></tbody>'),
    "plotly": (
        '<script id="plotly">{}</script>',
        '<script id="plotly" type="text/plain" data-packed="{}"></script>',
    ),
    "data": (
        '<script type="application/json" id="page-data">{}</script>',
        '<script type="application/json" id="page-data" data-packed="{}"></script>',
    ),
}
"""What each part looks like, plain and packed."""


def _any_part(form: int, inside: str) -> re.Pattern[str]:
    """Finds every part in one of its two forms; the group that matched is named after it."""
    kinds = ((part, forms[form].split("{}")) for part, forms in FORMS.items())
    found = (f"{re.escape(a)}(?P<{part}>{inside}){re.escape(b)}" for part, (a, b) in kinds)
    return re.compile("|".join(found), re.DOTALL)


PLAIN, PACKED = _any_part(0, ".*?"), _any_part(1, "[A-Za-z0-9+/=]*")


def packed(page: str) -> str:
    """A page that `render` made, its scripts and long tables packed; `unpacked` is the way back."""

    def small(found: re.Match[str]) -> str:
        part, text = _part(found)
        if part == "rows" and len(text) < LONG:
            return found[0]
        return FORMS[part][1].format(base64.b64encode(zlib.compress(text.encode(), 9)).decode())

    return PLAIN.sub(small, page)


def unpacked(page: str) -> str:
    """The page as `render` made it; what is damaged, or too large, stays as it is.

    >>> page = "<tbody>" + 9_999 * "<tr>" + "</tbody>"
    >>> len(packed(page)) < 200, unpacked(packed(page)) == page
    (True, True)
    """

    def whole(found: re.Match[str]) -> str:
        part, text = _part(found)
        opener = zlib.decompressobj()
        try:
            plain = opener.decompress(base64.b64decode(text), MOST).decode()
        except (zlib.error, ValueError):
            return found[0]
        return FORMS[part][0].replace("{}", plain) if opener.eof else found[0]

    return PACKED.sub(whole, page)


def _part(found: re.Match[str]) -> tuple[str, str]:
    part = str(found.lastgroup)
    return part, found[part]
