"""No test reaches another machine: connecting anywhere else fails, whoever asks for it."""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import Any

LOCAL_NAMES = {"", "localhost", "localhost.localdomain", "ip6-localhost"}


class NetworkForbiddenError(RuntimeError):
    """A test asked for another machine than this one."""


def is_loopback(host: Any) -> bool:
    """Whether an address or a name is this machine's own; other names are asked of a server."""
    text = (host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "")).lower()
    if text in LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or _is_of_this_machine(address)


def _is_of_this_machine(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Ray's nodes meet at it. Only an address of one's own can be bound, and nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return not (address.is_unspecified or address.is_multicast)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        # A pair or quadruple is an internet address; a path is a socket of this machine.
        if isinstance(address, tuple) and address and not is_loopback(address[0]):
            raise NetworkForbiddenError(f"{event} {address!r}: tests talk to this machine alone")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and not is_loopback(args[0]):
        raise NetworkForbiddenError(f"{event} {args[0]!r}: tests talk to this machine alone")


def forbid_other_machines() -> None:
    """For the rest of this process: audit events cannot be switched off or patched away."""
    sys.addaudithook(_refuse)


__all__ = ["NetworkForbiddenError", "forbid_other_machines", "is_loopback"]
