"""The way to a server: its address as it is sent, the proxy of the environment, whom TLS trusts."""

from __future__ import annotations

import base64
import ipaddress
import ssl
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from workbench.errors import InputError


@dataclass(frozen=True)
class Route:
    """The way to a server, found once for many requests.

    Attributes:
        parts: Where its API begins, as it is sent.
        proxy: What its requests go through, if anything.
        tls: Whom it is trusted by; None for plain http.
    """

    parts: SplitResult
    proxy: SplitResult | None
    tls: ssl.SSLContext | None

    @classmethod
    def to(cls, url: str) -> Self:
        """Find the way to a server.

        Raises:
            InputError: The host's name is none, or the environment names a proxy of another kind.
        """
        parts = _ascii(urlsplit(url))
        return cls(parts, _proxy(parts), _authorities() if parts.scheme == "https" else None)

    @property
    def host(self) -> str:
        """Name or address of the server."""
        return str(self.parts.hostname)

    @property
    def port(self) -> int:
        """Port of the server."""
        return self.parts.port or (443 if self.tls else 80)

    @property
    def first(self) -> tuple[str, int]:
        """Host and port that are connected to: the proxy's, if there is one."""
        if self.proxy is None:
            return self.host, self.port
        return _host(self.proxy), self.proxy.port or 80


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ascii(parts: SplitResult) -> SplitResult:
    """Return an address as it is sent: names of hosts by RFC 3490, paths by RFC 3986.

    Raises:
        InputError: The host's name is none.
    """
    host = _host(parts)
    netloc = f"[{host}]" if ":" in host else host
    if parts.port is not None:
        netloc = f"{netloc}:{parts.port}"
    return parts._replace(netloc=netloc, path=quote(parts.path, safe="/%:@!$&'()*+,;=~"))


def _host(parts: SplitResult) -> str:
    """Return the host of an address as it is looked up.

    Raises:
        InputError: Its name is none.
    """
    try:
        host = str(parts.hostname).encode("idna").decode()
    except UnicodeError:
        host = ""
    if not host.isprintable() or not host or " " in host:
        raise InputError(f"{parts.hostname!r} is no name of a host. Check the URL.")
    return host


def _authorities() -> ssl.SSLContext:
    """Return those that httpx trusts; SSL_CERT_FILE and SSL_CERT_DIR name others.

    Reading them takes 20 ms and more.
    """
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _proxy(parts: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment names for an address, if it does.

    Raises:
        InputError: It is not one for http, or its address is none.
    """
    # What is for this machine must not go through a proxy, and the key with it.
    if is_loopback(parts.hostname or ""):
        return None
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return None
    try:
        found = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        _ = found.port
    except ValueError:
        # Not repeated: it may carry a password.
        raise InputError(
            f"The environment names a proxy for {parts.hostname} whose host or port is none. Set "
            "no_proxy for this host, or another proxy such as http://proxy.example:3128."
        ) from None
    if found.scheme != "http" or not found.hostname:
        raise InputError(
            f"The environment names a proxy of the kind {found.scheme} for {parts.hostname}, and "
            "only http:// ones can be used. Set no_proxy for this host, or another proxy."
        )
    _host(found)
    return found


def credentials(proxy: SplitResult) -> dict[str, str]:
    """Return the headers that a proxy asks for (RFC 7617)."""
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
