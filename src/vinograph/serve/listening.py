"""Which addresses a host name means."""

from __future__ import annotations

import ipaddress
import socket


def addresses_of(host: str) -> list[str]:
    """The addresses that a name stands for; none where it can't be resolved."""
    try:
        return sorted({str(each[4][0]).partition("%")[0] for each in socket.getaddrinfo(host, None)})
    except (OSError, UnicodeError):
        return []


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to ``host``.

    A name that can't be resolved counts as such: nothing listens there, and that is told later.
    """
    return all(ipaddress.ip_address(each).is_loopback for each in addresses_of(host))
