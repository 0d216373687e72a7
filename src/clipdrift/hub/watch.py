"""What a hub sends, watched while a library of the hub's fetches.

The hub's library names files after what it is told: a commit, an entity tag, a path in a listing. A
hub that says `../../X` has it write outside its folder; one that names a file of this machine has
it read as if it were fetched. And the library waits for every single byte anew, so that a body that
drips has no end. Both hold for all that is asked through it, by `datasets` as well.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

HEADERS_SECONDS = 60.0
"""From a question to the beginning of its answer, redirections included."""

WINDOW_SECONDS, SLOWEST = 60.0, 1_000
"""Over so many seconds of waiting for bodies, fewer bytes a second than that end the fetch."""

LONGEST_SECONDS = 24 * 3600.0
"""Of waiting for bodies, all together: whatever is fetched can be fetched faster."""

MAX_TEXT = 64_000_000
"""Bytes, unpacked, of an answer that is read whole or does not say how long it is."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
REPOSITORY = re.compile(r"[\w.-]{1,128}(/[\w.-]{1,128})?")
TAGS = ("etag", "x-linked-etag")


class Unfit(Exception):
    """What a hub did that no hub may do.

    Args:
        expected, got: as in a fault.
    """

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected, self.got = expected, got


@contextmanager
def watched() -> Iterator[None]:
    """Watch every answer of the hub while open.

    Files come by plain HTTP meanwhile: the client of the hub's other store knows no limit of ours.

    Raises:
        Unfit: what the hub did, whatever the library made of it.
    """
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import _http

    factory, plain = _http._GLOBAL_CLIENT_FACTORY, constants.HF_HUB_DISABLE_XET
    watch = _Watch()
    set_client_factory(lambda: watch.client(factory()))
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        set_client_factory(factory)
        constants.HF_HUB_DISABLE_XET = plain
        if watch.unfit is not None:
            raise watch.unfit from None


class _Watch:
    """One fetch: its clients, how long it has waited for bodies, and what ended it."""

    def __init__(self) -> None:
        self.unfit: Unfit | None = None
        self.waited = self.in_window = 0.0
        self.bytes = 0
        self.lock = threading.Lock()

    def client(self, client: Any) -> Any:
        """A client of the hub's library whose every answer passes here."""
        send = client.send

        def sent(request: Any, *, stream: bool = False, **how: Any) -> Any:
            if self.unfit is not None:  # the library may try again
                raise self.unfit
            response = self._in_time(client, lambda: send(request, stream=True, **how))
            self._judged(lambda: _require_names(response))
            self._follow(response, bound=not stream or "content-length" not in response.headers)
            if not stream:
                response.read()
            return response

        client.send = sent
        return client

    def _in_time(self, client: Any, ask: Callable[[], Any]) -> Any:
        """The beginning of an answer; a client whose answer takes too long is closed under it."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            client.close()

        timer = threading.Timer(HEADERS_SECONDS, give_up)
        timer.daemon = True
        timer.start()
        try:
            return ask()
        except Exception:
            if late.is_set():
                self._end(Unfit(f"an answer within {HEADERS_SECONDS:g} s", "none"))
            raise
        finally:
            timer.cancel()

    def _follow(self, response: Any, *, bound: bool) -> None:
        """Have the body of an answer pass here, as it comes, unpacked, and as JSON."""
        raw, unpacked, parsed = response.iter_raw, response.iter_bytes, response.json

        def bounded(*size: Any, **named: Any) -> Iterator[bytes]:
            total = 0
            for part in unpacked(*size, **named):
                total += len(part)
                if total > MAX_TEXT:
                    self._end(Unfit(f"a text of at most {MAX_TEXT:,} bytes", "a longer one"))
                yield part

        response.iter_raw = lambda *size, **named: self._timed(raw(*size, **named))
        if bound:
            response.iter_bytes = bounded
        response.json = lambda **how: self._judged(lambda: _require_fit(parsed(**how)))

    def _timed(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            since, part = time.monotonic(), b""
            try:
                part = next(parts)
            except StopIteration:
                return
            finally:
                self._count(time.monotonic() - since, len(part))
            yield part

    def _count(self, seconds: float, n_bytes: int) -> None:
        """Note how long a part of a body was waited for.

        Raises:
            Unfit: too few bytes over too many seconds.
        """
        with self.lock:
            self.waited += seconds
            self.in_window += seconds
            self.bytes += n_bytes
            slow = self.bytes < SLOWEST * self.in_window
            if self.in_window >= WINDOW_SECONDS:
                rate = f"{self.bytes / self.in_window:,.0f} over {self.in_window:.0f} s"
                self.in_window, self.bytes = 0.0, 0
                if slow:
                    self._end(Unfit(f"at least {SLOWEST:,} bytes a second", rate))
        if self.waited > LONGEST_SECONDS:
            self._end(Unfit(f"an end within {LONGEST_SECONDS / 3600:g} h", "none"))

    def _judged(self, judge: Callable[[], Any]) -> Any:
        try:
            return judge()
        except Unfit as unfit:
            self._end(unfit)

    def _end(self, unfit: Unfit) -> None:
        self.unfit = self.unfit or unfit
        raise self.unfit


def _require_names(response: Any) -> None:
    """Headers after which files are named: a commit; of an answer about a file, its tag."""
    headers = response.headers
    named = [headers.get("x-repo-commit")]
    if response.request.method == "HEAD":
        named += [_tag(headers[name]) for name in TAGS if name in headers]
    _require(NAME, "a commit or tag of letters and digits", named)


def _tag(text: str) -> str:
    """An entity tag as the hub's library reads it.

    >>> _tag('W/"abc"')
    'abc'
    """
    return text.lstrip("W/").strip('"')


def _require_fit(body: Any) -> Any:
    """A description of a repository, or a listing of its files."""
    for item in body if isinstance(body, list) else [body]:
        if isinstance(item, dict):
            large, files = item.get("lfs"), item.get("siblings")
            large = large if isinstance(large, dict) else {}
            hashes = [item.get(key) for key in ("sha", "oid", "xetHash")]
            hashes += [large.get(key) for key in ("oid", "sha256")]
            _require(NAME, "a commit or hash of letters and digits", hashes)
            _require(REPOSITORY, "an id of a repository", [item.get("id"), item.get("modelId")])
            siblings = files if isinstance(files, list) else []
            names = [file.get("rfilename") for file in siblings if isinstance(file, dict)]
            _require_inside([item.get("path"), *names])
    return body


def _require(pattern: re.Pattern[str], rule: str, values: Iterable[Any]) -> None:
    for value in values:
        fits = isinstance(value, str) and pattern.fullmatch(value) and ".." not in value
        if value is not None and not fits:
            raise Unfit(rule, repr(value)[:100])


def _require_inside(paths: Iterable[Any]) -> None:
    for path in paths:
        if path is None:
            continue
        parts = PurePosixPath(path).parts if isinstance(path, str) else ("/",)
        if ".." in parts or "/" in parts[:1] or "\\" in str(path) or not str(path).isprintable():
            raise Unfit("names of files inside the repository", repr(path)[:100])


def answers(repo_id: str, revision: str | None, repo_type: str) -> bool:
    """Whether the hub says anything about a repository within HF_HUB_ETAG_TIMEOUT seconds.

    Asked before every download, because the first request of a download has no time limit of its
    own: behind a firewall that drops packets it would wait for ever.

    Raises:
        Unfit: if what it says must not be used; noticed where it is `watched`.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wait = constants.HF_HUB_ETAG_TIMEOUT
    try:
        HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision, timeout=wait)
    except (HfHubHTTPError, HFValidationError):
        return True  # a refusal is an answer; the download meets it again, and it is told there
    except Unfit:
        raise
    except Exception:  # no connection, a timeout, offline: HTTP clients have names of their own
        return False
    return True
