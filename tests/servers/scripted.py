"""A server on a socket that sends exactly the bytes it is told, in exactly the pieces."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Script = Callable[["Connection"], None]

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Connection:
    """What a script talks to: one request, and the way back."""

    def __init__(self, end: socket.socket, head: str, body: bytes, until: threading.Event) -> None:
        self._end = end
        self.path = head.split(" ")[1]
        self.headers = dict(
            line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
        )
        self.body: dict[str, Any] = json.loads(body) if body else {}
        self.until = until

    def send(self, data: bytes) -> None:
        self._end.sendall(data)

    def answer(self, status: str, body: bytes, *headers: str, kind: str = "application/json"):
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *headers]
        self.send("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)

    def stream(self, *pieces: bytes, end: bool = True) -> None:
        """Send pieces, each as one chunk of the transfer; without `end` it is cut short."""
        self.send(STREAM)
        for piece in pieces:
            self.piece(piece)
        if end:
            self.send(b"0\r\n\r\n")

    def piece(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def closed_by_client(self, seconds: float = 10.0) -> bool:
        """Wait until the other side closes."""
        self._end.settimeout(seconds)
        try:
            return self._end.recv(1) == b""
        except ConnectionResetError:
            return True


class Server:
    """Its address, what it was asked, and `until`, which scripts may wait for."""

    def __init__(self, script: Script, models: list[str] | None, tls: ssl.SSLContext | None):
        self.asked: list[Connection] = []
        self.errors: list[Exception] = []
        self.until = threading.Event()
        self._script, self._models, self._tls = script, models, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(end,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, end: socket.socket) -> None:
        with end:
            try:
                if self._tls:
                    end = self._tls.wrap_socket(end, server_side=True)
                with end:
                    self._answer(end)
            except (OSError, ValueError) as error:
                self.errors.append(error)

    def _answer(self, end: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = end.recv(1 << 16)
            if not piece:
                return
            data += piece
            if not data[:1].isalpha():
                # Such as the beginning of TLS.
                end.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return
        head, _, body = data.partition(b"\r\n\r\n")
        connection = Connection(end, head.decode(), b"", self.until)
        while len(body) < int(connection.headers.get("content-length", 0)):
            body += end.recv(1 << 16)
        connection.body = json.loads(body) if body else {}
        if connection.path.endswith("/models") and self._models is not None:
            data = {"object": "list", "data": [{"id": name} for name in self._models]}
            connection.answer("200 OK", json.dumps(data).encode())
            return
        self.asked.append(connection)
        self._script(connection)

    def close(self) -> None:
        self.until.set()
        # Closing alone would not wake up a thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10.0)
            assert not thread.is_alive()


@contextmanager
def scripted(
    script: Script, models: list[str] | None = ("m",), tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """Serve until the block ends.

    Args:
        script: Answers each request.
        models: What /models lists; None leaves that to the script.
        tls: Speak TLS with this.
    """
    server = Server(script, None if models is None else list(models), tls)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def nowhere() -> Iterator[str]:
    """Give the address of a server that is not there; nobody else can take it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # without listen(): whoever connects is refused
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


def event(value: Any) -> bytes:
    """Return a value as the bytes of one event."""
    data = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"data: {data}\n\n".encode()


def delta(text: str | None = None, reason: str | None = None, **more: Any) -> bytes:
    """Return a chunk of a chat answer."""
    inner = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": inner, "finish_reason": reason, **more}
    return event({"object": "chat.completion.chunk", "choices": [choice]})


DONE = event("[DONE]")


def completing(*, short: int = 0) -> Script:
    """Answer a completion in chunks of two tokens, with the count."""

    def text(text: str, reason: str | None = None) -> bytes:
        return event({"choices": [{"index": 0, "text": text, "finish_reason": reason}]})

    def script(connection: Connection) -> None:
        wanted = connection.body["max_tokens"] - short
        usage = {
            "prompt_tokens": len(connection.body["prompt"]),
            "completion_tokens": wanted,
        }
        pieces = [text("ab") for _ in range(wanted // 2)]
        told = event({"choices": [], "usage": usage})
        connection.stream(*pieces, text("", "length"), told, DONE)

    return script
