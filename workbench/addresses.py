"""Addresses of servers: one form for each, and whether one can listen there."""

from __future__ import annotations

import errno
import socket
from urllib.parse import urlsplit

from workbench.endpoint_route import is_loopback


def obstacle(host: str, port: int) -> str:
    """Say why nobody can listen on a port and what to do, or nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: connections of one that has ended do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        why = (error.strerror or "unknown").lower()
        # The second is of machines without IPv6.
        foreign = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
        if foreign or isinstance(error, socket.gaierror):
            return f"{host} is no address of this machine ({why}). Give 127.0.0.1, or 0.0.0.0."
        return f"port {port} of {host} cannot be used ({why}). Give another port."
    return ""


def url_of(host: str, port: int) -> str:
    """Return the URL at which one asks a server that listens on an address of this machine.

    One that listens on all addresses is asked at its loopback; IPv6 is bracketed (RFC 3986).
    """
    asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{asked}]:{port}" if ":" in asked else f"http://{asked}:{port}"


def place_of(url: str) -> str:
    """Return host and port of a server in one form, since this machine has several names.

    What is no address, as other tools may write one down, is returned as it is.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None:
        return url
    here = is_loopback(host) or host in ("0.0.0.0", "::")  # noqa: S104 - all of its addresses
    name = "localhost" if here else host
    return f"{name}:{port}" if port else name
