"""The host names under which the page answers: a defence against DNS rebinding.

Another site can have its own name point to this machine; a browser then takes its scripts to be of
our origin. The Host header of their requests still has the other name, so it is refused.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Hosts:
    """The names of a server: those of its addresses, and further ones that are allowed."""

    def __init__(self, host: str, addresses: Iterable[str], further: Iterable[str] = ()) -> None:
        """Collect the names.

        Args:
            host: the name that was resolved to the addresses.
            addresses: those that the server listens at.
            further: names that are allowed besides, such as a reverse proxy's.
        """
        bound = [ipaddress.ip_address(each.partition("%")[0]) for each in addresses]
        self._further = {_plain(each) for each in further}
        self._names = {_plain(host), *self._further, *(str(each) for each in bound)}
        self._at_any_address = any(each.is_unspecified for each in bound)
        if self._at_any_address or any(each.is_loopback for each in bound):
            self._names |= {"localhost", "127.0.0.1", "::1"}
        if self._at_any_address:
            name = socket.gethostname().lower()
            self._names |= {name, f"{name}.local", socket.getfqdn().lower()}

    def allow(self, host: str) -> bool:
        """Whether a request's Host header names this server. Any port will do: a container maps it.

        A server that listens at every address doesn't know them all, so it allows each. That is
        safe: rebinding takes a name.
        """
        name = _name(host)
        return name in self._names or (self._at_any_address and _is_address(name))

    def same(self, origin: str, host: str) -> bool:
        """Whether ``origin`` is that of the page which is served under ``host``."""
        try:
            parts = urlsplit(origin)
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
            served = urlsplit(f"{parts.scheme}://{host}")
            served_port = served.port or _DEFAULT_PORTS.get(served.scheme)
        except ValueError:
            return False
        name = _plain(parts.hostname or "")
        return parts.scheme in _DEFAULT_PORTS and (
            name in self._further or (name == _plain(served.hostname or "") and port == served_port)
        )


def _name(host: str) -> str:
    """The name of a Host header: without its port, and an IPv6 address without its brackets."""
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
