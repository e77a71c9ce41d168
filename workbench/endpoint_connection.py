"""One request to a server, over a connection of its own, and the answer as it comes (HTTP/1.1).

By the standard library's client: with it a stream takes less than half of the processor time that
it takes with httpx, and a load generator of many streams must not measure itself.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self

from workbench.endpoint_route import Route, credentials

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
        super().__init__(*route.first, timeout=timeout)
        # What the library makes its socket with; it talks to a proxy before it returns.
        self._create_connection = self._stand
        if route.proxy and route.tls:
            self.set_tunnel(route.host, route.port, credentials(route.proxy))

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

    def _stand(
        self, place: tuple[str, int], timeout: float, source: tuple[str, int] | None
    ) -> socket.socket:
        """Make the connection, and tell of it at once."""
        end = socket.create_connection(place, timeout, source)
        self._met(end)
        return end

    def connect(self) -> None:
        """Connect, through the proxy if there is one, and agree on the encryption.

        Raises:
            ConnectTimeout: It took too long.
            OSError: It failed.
        """
        try:
            super().connect()
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
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException as error:
            raise ConnectionError(f"what the proxy answers is no HTTP ({error})") from None

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
            through = credentials(route.proxy)
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
