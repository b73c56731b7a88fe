"""Which addresses a host name means."""

from __future__ import annotations

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to ``host``.

    A name that can't be resolved counts as such: nothing listens there, and that is told later.
    """
    try:
        addresses = {str(each[4][0]).partition("%")[0] for each in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return True
    return all(ipaddress.ip_address(each).is_loopback for each in addresses)
