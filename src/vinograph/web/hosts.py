"""The names under which the page may be asked for.

A page of another site can have its own name point to this machine (DNS rebinding), and its scripts then count as of
the same origin. The name in their requests gives them away.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Hosts:
    """The names of a server that listens at some addresses, and ``further`` ones, such as a reverse proxy's."""

    def __init__(self, host: str, addresses: Iterable[str], further: Iterable[str] = ()) -> None:
        """``host`` is the name by which the ``addresses`` were found."""
        bound = [ipaddress.ip_address(each.partition("%")[0]) for each in addresses]
        self._further = {_plain(each) for each in further}
        self._names = {_plain(host), *self._further, *(str(each) for each in bound)}
        self._everywhere = any(each.is_unspecified for each in bound)
        if self._everywhere or any(each.is_loopback for each in bound):
            self._names |= {"localhost", "127.0.0.1", "::1"}
        if self._everywhere:
            name = socket.gethostname().lower()
            self._names |= {name, f"{name}.local", socket.getfqdn().lower()}

    def allow(self, host: str) -> bool:
        """Whether a request's Host names this server. Any port will do: a container's is mapped.

        A server that listens at every address has addresses that it doesn't know of, so it takes each, and no name
        but its own: an address can't be bent.
        """
        name = _name(host)
        return name in self._names or (self._everywhere and _is_address(name))

    def same(self, origin: str, host: str) -> bool:
        """Whether a page of ``origin`` is one that was served under ``host``."""
        try:
            parts = urlsplit(origin)
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
            asked = urlsplit(f"{parts.scheme}://{host}")
            asked_port = asked.port or _DEFAULT_PORTS.get(asked.scheme)
        except ValueError:
            return False
        name = _plain(parts.hostname or "")
        return parts.scheme in _DEFAULT_PORTS and (
            name in self._further or (name == _plain(asked.hostname or "") and port == asked_port)
        )


def _name(host: str) -> str:
    """The host without its port, and an IPv6 address without its brackets."""
    try:
        return _plain(urlsplit(f"//{host}").hostname or "") if "@" not in host else ""
    except ValueError:
        return ""


def _plain(name: str) -> str:
    name = name.strip().removeprefix("[").removesuffix("]").lower().removesuffix(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
