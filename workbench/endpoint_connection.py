"""One request to a server, over a connection of its own, and the answer as it comes (HTTP/1.1).

By the standard library's client: with it a stream takes less than half of the processor time that
it takes with httpx, and a load generator of many streams must not measure itself.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from workbench.errors import InputError

_PIECE = 1 << 16
"""Most bytes that are taken at once."""

_AGENT = "trtllm-workbench"

Met = Callable[[socket.socket], None]
"""Is told the socket of a connection, so that it can be shut from outside."""


class ConnectTimeout(TimeoutError):
    """The connection was not made in time."""


class Answer:
    """What a server answers: its status and headers, and its body as it comes."""

    def __init__(self, response: http.client.HTTPResponse, path: str) -> None:
        self.status = response.status
        self.path = path
        self._response = response

    def header(self, name: str) -> str | None:
        """Return the value of a header, or None."""
        return self._response.getheader(name)

    def pieces(self) -> Iterator[bytes]:
        """Yield the body in the pieces in which it comes.

        Raises:
            OSError: The connection broke off.
        """
        unpack = _unpacked(self.header("content-encoding") or "identity")
        try:
            while piece := self._response.read1(_PIECE):
                yield unpack(piece)
            if self._response.length:  # bytes that were announced and did not come
                raise http.client.IncompleteRead(b"", self._response.length)
        except http.client.HTTPException:
            raise ConnectionError("the server closed the connection inside its answer") from None
        except zlib.error:
            raise ConnectionError("the answer is not packed as its head says") from None


class _Final(http.client.HTTPResponse):
    """Passes over informational answers (RFC 9110, 15.2); the library does so for 100 alone."""

    def begin(self) -> None:
        """Read the head of the final answer."""
        super().begin()
        while 101 < self.status < 200:
            self.headers = None  # type: ignore[assignment]  # else nothing more is read
            super().begin()


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


class Connection(http.client.HTTPConnection):
    """A connection for one request; a context manager, which closes it."""

    response_class = _Final

    def __init__(self, route: Route, timeout: float, met: Met) -> None:
        """Prepare a connection; nothing is sent yet.

        Args:
            route: The way to the server.
            timeout: Seconds until it must stand, and for each step until `patient` is called.
            met: Told its socket when there is one; twice with TLS, whose socket takes its place.
        """
        self._route, self._met = route, met
        self._response: http.client.HTTPResponse | None = None
        if route.proxy is None:
            super().__init__(route.host, route.port, timeout=timeout)
            return
        super().__init__(str(route.proxy.hostname), route.proxy.port or 80, timeout=timeout)
        if route.tls:
            self.set_tunnel(route.host, route.port, _credentials(route.proxy))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._response:
            self._response.close()
        self.close()

    def connect(self) -> None:
        """Connect, through the proxy if there is one, and agree on the encryption.

        Raises:
            ConnectTimeout: It took too long.
            OSError: It failed.
        """
        try:
            super().connect()
            self._met(self.sock)
            if self._route.tls:
                self.sock = self._route.tls.wrap_socket(
                    self.sock,
                    server_hostname=self._route.host,
                    # Not at once: it can only be shut from outside when its socket is known.
                    do_handshake_on_connect=False,
                )
                self._met(self.sock)
                self.sock.do_handshake()
        except TimeoutError as error:
            raise ConnectTimeout(str(error)) from error

    def patient(self) -> None:
        """Wait without end from now on; whoever asks has a clock of their own."""
        self.sock.settimeout(None)

    def send_request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> None:
        """Send a request; the path is below where the API begins.

        Raises:
            OSError: The connection took too long.
        """
        route = self._route
        self._path, through = f"{route.parts.path}/{path}", {}
        target = self._path
        if route.proxy and not route.tls:
            target = f"http://{route.parts.netloc}{target}"
            through = _credentials(route.proxy)
        own = {"Host": route.parts.netloc, "User-Agent": _AGENT, "Connection": "close"}
        # A server may refuse before it has read all of the body; without an answer of its, waiting
        # for one raises the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.request(method, target, body, {**own, **through, **headers})

    def answer(self) -> Answer:
        """Wait for the answer's head.

        Raises:
            OSError: The connection broke off, or what came is no HTTP.
        """
        try:
            self._response = self.getresponse()
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException as error:
            raise ConnectionError(f"what came is no answer of HTTP/1.1 ({error})") from None
        return Answer(self._response, self._path)


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
    try:
        netloc = parts.netloc.encode("idna").decode()
    except UnicodeError:
        raise InputError(f"{parts.hostname} is no name of a host. Check the URL.") from None
    return parts._replace(netloc=netloc, path=quote(parts.path, safe="/%:@!$&'()*+,;=~"))


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
        InputError: It is not one for http.
    """
    # What is for this machine must not go through a proxy, and the key with it.
    if is_loopback(parts.hostname or ""):
        return None
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy or proxy_bypass(parts.netloc):
        return None
    found = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if found.scheme != "http" or not found.hostname:
        raise InputError(
            f"The environment names a proxy of the kind {found.scheme} for {parts.hostname}, and "
            "only http:// ones can be used. Set no_proxy for this host, or another proxy."
        )
    return found


def _credentials(proxy: SplitResult) -> dict[str, str]:
    """Return the headers that a proxy asks for (RFC 7617)."""
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _unpacked(encoding: str) -> Callable[[bytes], bytes]:
    """Return what unpacks pieces, for servers that pack them though asked not to."""
    match encoding.strip().lower():
        case "gzip":
            return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress
        case "deflate":
            return _inflated()
    return bytes


def _inflated() -> Callable[[bytes], bytes]:
    """Return what unpacks deflate: with zlib's head, or without, as some send it (RFC 9110)."""
    inflate = None

    def unpack(piece: bytes) -> bytes:
        nonlocal inflate
        if inflate is None:
            # The head begins with its method, 8 (RFC 1950); plain deflate does not.
            headed = piece[0] & 0x0F == zlib.DEFLATED
            inflate = zlib.decompressobj(zlib.MAX_WBITS if headed else -zlib.MAX_WBITS)
        return inflate.decompress(piece)

    return unpack
