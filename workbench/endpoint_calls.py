"""Calls to a server: the key, the connection, and what is wrong in a sentence."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from workbench.endpoint_connection import Answer, Connection, ConnectTimeout, Met
from workbench.endpoint_route import Route
from workbench.errors import InputError, RequestError, SessionError, WorkbenchError
from workbench.openai_protocol import error_text
from workbench.units import format_seconds

_BODY = 1 << 20
"""Most bytes that are read of an answer that is no stream."""

_QUOTED = 500
"""Most characters of a server's words in a sentence of ours."""


@dataclass(frozen=True)
class Patience:
    """How long a server may take, in seconds.

    `first_token` counts from the request, and holds queue and prefill; `between_tokens` counts
    from token to token. What a server sends to keep a connection alive is no token.
    """

    connect: float = 10.0
    first_token: float = 300.0
    between_tokens: float = 60.0


class Caller:
    """Makes connections to one server. It keeps the name of the key's variable, never the key."""

    def __init__(self, url: str, key_env: str | None, patience: Patience) -> None:
        self.url = url
        self.patience = patience
        self._key_env = key_env
        self._route = Route.to(url)

    def connection(self, met: Met = lambda _: None) -> Connection:
        """Return what connects for one request; a context manager.

        One connection a request: closing it is how a request is cancelled, and one that was kept
        may be dead when it is used again. Redirects are not followed: the key is for this host.
        """
        return Connection(self._route, self.patience.connect, met)

    def headers(self) -> dict[str, str]:
        """Return the headers of a request.

        Raises:
            InputError: The variable is not set, or holds what cannot be a key.
        """
        # Unpacked bytes come when they are there; a packed stream may be held back.
        headers = {"Accept-Encoding": "identity"}
        if key := self._key():
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _key(self) -> str:
        if self._key_env is None:
            return ""
        key = os.environ.get(self._key_env, "").strip()
        if not key:
            raise InputError(
                f"The environment variable {self._key_env} is not set, which should hold the key "
                f"for {self.url}. Set it before the notebook server starts, or in "
                "os.environ."
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise InputError(
                f"The environment variable {self._key_env} holds characters that no key has, "
                "such as a space or a line end. Set it again."
            )
        return key

    def clean(self, text: str) -> str:
        """Return a server's words without the key, should they repeat it, and not too long."""
        key = os.environ.get(self._key_env or "", "").strip()
        text = " ".join((text.replace(key, "(the key)") if key else text).split())
        return text if len(text) <= _QUOTED else f"{text[:_QUOTED]} ..."

    def models(self) -> dict[str, Mapping[str, Any]] | None:
        """Return the models that the server lists, by name; None where it has no list.

        Raises:
            InputError: The key is not there.
            SessionError: The server does not answer, or refuses the key.
        """
        headers = self.headers()
        try:
            with self.connection() as connection:
                connection.connect()
                connection.send_request("GET", "models", headers)
                answer = connection.answer()
                if answer.status in (401, 403):
                    raise SessionError(str(self.refusal(answer, body_of(answer), "")))
                if answer.status != HTTPStatus.OK:
                    return None  # not all servers have a list
                return _listed(body_of(answer))
        except OSError as error:
            raise self.unreachable(error) from None

    def unreachable(self, error: OSError) -> SessionError:
        """Return what a failed connection means."""
        if known := self._late(error) or self._known(error):
            return SessionError(known)
        words = self.clean(str(error) or type(error).__name__)
        return SessionError(f"The connection to {self.url} failed: {words}.")

    def _late(self, error: OSError) -> str:
        """Say what took too long, or nothing."""
        patience = format_seconds(self.patience.connect)
        if isinstance(error, ConnectTimeout):
            return (
                f"{self._first()} did not take the connection within {patience}. Check host and "
                "port, or a firewall."
            )
        if isinstance(error, TimeoutError):
            return f"{self.url} took the connection and did not answer within {patience}."
        return ""

    def _known(self, error: OSError) -> str:
        """Say what an error of the network means, or nothing."""
        host = urlsplit(self.url).hostname
        match error:
            case socket.gaierror():
                return (
                    f"There is no host {self._route.first[0]}, or its name cannot be resolved from "
                    f"here ({error.strerror}). Check the URL {self._first()}."
                )
            case ConnectionRefusedError():
                return (
                    f"Nothing listens at {self._first()}: the connection was refused. Start the "
                    "server, or check host and port."
                )
            case ssl.SSLCertVerificationError():
                return (
                    f"The certificate of {host} cannot be verified: {error.verify_message}. If it "
                    "is signed by an authority of your own, name that in SSL_CERT_FILE."
                )
            case ssl.SSLError():
                return (
                    f"{self.url} does not speak TLS as expected ({error.reason or error}). Perhaps "
                    "it is a server for plain http."
                )
        return ""

    def _first(self) -> str:
        """Say what is connected to: the server, or the proxy on the way to it."""
        if self._route.proxy is None:
            return self.url
        host, port = self._route.first
        return f"{host}:{port} (the proxy that the environment names for {self.url})"

    def refusal(self, answer: Answer, body: bytes, model: str) -> WorkbenchError:
        """Return what an answer other than 200 means."""
        status, words = answer.status, self.clean(_words(body))
        said = f" It says: {words}" if words else ""
        if status in (401, 403):
            return RequestError(f"{self.url} refuses {self._key_named()} ({status}).{said}")
        if status == HTTPStatus.NOT_FOUND:
            return RequestError(f"{self._not_found(model, answer.path)}{said}")
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            after = answer.header("retry-after")
            when = f" It asks to wait {_wait(after)}." if after else ""
            return RequestError(
                f"{self.url} takes no more requests for now (429).{when} Nothing is sent again by "
                f"itself.{said}"
            )
        if 300 <= status < 400:
            target = self.clean(answer.header("location") or "elsewhere")
            return SessionError(
                f"{self.url} sends on to {target} ({status}), which is not followed, since the "
                "key is for this address. Give the final one."
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return SessionError(f"{self.url} failed with status {status}.{said}")
        return RequestError(f"{self.url} refuses this request ({status}).{said}")

    def _key_named(self) -> str:
        if self._key_env is None:
            return "requests without a key; name the variable that holds it in key_env"
        return f"the key in {self._key_env}"

    def _not_found(self, model: str, path: str) -> str:
        """Say whether the model or the path is unknown there, as far as its list tells."""
        try:
            listed = self.models()
        except WorkbenchError:
            listed = None
        if listed and model not in listed:
            return f"{self.url} has no model {model!r} (404); it has {', '.join(sorted(listed))}."
        chat = path.endswith("chat/completions")
        other = "Give a plain prompt instead." if chat else "Give chat messages instead."
        if listed:
            return f"{self.url} has no {path} (404). {other}"
        return f"{self.url} knows the model {model!r} or the path {path} not (404). Check the name."


def body_of(answer: Answer) -> bytes:
    """Return the beginning of an answer that is no stream.

    Raises:
        OSError: The connection broke off.
    """
    body = b""
    for piece in answer.pieces():
        body += piece
        if len(body) >= _BODY:
            break
    return body[:_BODY]


def _listed(body: bytes) -> dict[str, Mapping[str, Any]] | None:
    """Return the models in an answer of /models, or None where it is none."""
    try:
        entries = json.loads(body)["data"]
        return {str(entry["id"]): entry for entry in entries}
    except (ValueError, KeyError, TypeError):
        return None


def _words(body: bytes) -> str:
    """Return what an error's body says: its message, or text without the marks of a web page."""
    try:
        return error_text(json.loads(body))
    except ValueError:
        return re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", body.decode(errors="replace"))


def _wait(after: str) -> str:
    """Say how long: seconds, or a date (RFC 9110, section 10.2.3)."""
    return format_seconds(float(after)) if after.isdecimal() else f"until {after}"
