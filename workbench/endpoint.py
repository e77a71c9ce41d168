"""Endpoints: any OpenAI-compatible server by URL, with the interface of a session.

Nothing is compiled and nothing is loaded: the server has its model already.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from workbench.endpoint_calls import Caller, Patience
from workbench.endpoint_clock import Clock
from workbench.endpoint_route import is_loopback
from workbench.endpoint_stream import Count, ServedGeneration, Stream
from workbench.errors import InputError, SessionError
from workbench.generation import prompt_fields
from workbench.openai_protocol import LACKS, PATHS, request_body
from workbench.opened import Prompt
from workbench.sampling import Sampling
from workbench.units import printable_json

_SUFFIXES = ("/chat/completions", "/completions", "/models", "/responses")
"""Ends of addresses that people copy from documentation."""


@dataclass(frozen=True)
class Endpoint:
    """A server, and a model on it.

    Attributes:
        url: Where its API begins, such as http://127.0.0.1:8000/v1. Without a path, /v1 is added.
        model: The model's name there; None takes the only one that the server lists.
        key_env: Name of the environment variable that holds the key. The key itself is read for
            each request, and neither kept nor shown.
        chat: Whether panels send prompts as chat messages. `generate` goes by what it is given.
        extra: Fields of the server's own for each request, such as {"regex": ...}.
        patience: How long it may take to connect, until the first token, and between two.
    """

    url: str
    model: str | None = None
    key_env: str | None = None
    chat: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        """Bring the address into one form.

        Raises:
            InputError: It is none, or it carries a secret.
        """
        object.__setattr__(self, "url", _base(self.url))

    @property
    def exposed(self) -> str:
        """Why others may read the key and the texts on their way, or nothing."""
        parts = urlsplit(self.url)
        if parts.scheme == "https" or is_loopback(parts.hostname or ""):
            return ""
        what = "The key and the texts go" if self.key_env else "Texts go"
        return f"{what} to {parts.hostname} unencrypted; use https outside a trusted network."

    def open(self, count: Count | None = None) -> EndpointSession:
        """Ask the server for its models; return what generates with it.

        Args:
            count: Counts the tokens of a text, for servers that tell no number.

        Raises:
            InputError: The key is not there, or the model has to be named.
            SessionError: The server does not answer, or refuses the key.
        """
        return EndpointSession(self, count)

    def curl(self, prompt: Prompt, sampling: Sampling | None = None) -> str:
        """Return the shell line that asks the same; the key stays in its variable."""
        fields = prompt_fields(prompt)
        body = request_body(fields, self.model or "", sampling or Sampling(), self.extra)
        words = ["curl", "--no-buffer", f"{self.url}/{PATHS[next(iter(fields))]}"]
        words += ["--header", "Content-Type: application/json", "--data", printable_json(body)]
        line = shlex.join(words)
        return f'{line} --header "Authorization: Bearer ${self.key_env}"' if self.key_env else line


class EndpointSession:
    """Generates with a server; a context manager. See `opened.Opened`."""

    lacks: Mapping[str, str] = LACKS

    def __init__(self, endpoint: Endpoint, count: Count | None = None) -> None:
        self.endpoint = endpoint
        self._count = count
        self._caller = Caller(endpoint.url, endpoint.key_env, endpoint.patience)
        self._streams: set[Stream] = set()
        self._lock = threading.Lock()
        patience = endpoint.patience
        self._clock = Clock(min(patience.first_token, patience.between_tokens))
        self._closed = False
        listed = self._caller.models()
        self.model = endpoint.model or _only(listed, endpoint.url)
        about = (listed or {}).get(self.model, {})
        self.limits: dict[str, Any] = {
            "max_batch_size": None,
            "max_input_len": None,
            "max_output_len": None,
            # vLLM, SGLang and trtllm-serve; llama.cpp has it in "meta".
            "max_seq_len": about.get("max_model_len") or _meta(about).get("n_ctx"),
        }
        self.facts: dict[str, Any] = {
            "chat_template": endpoint.chat,
            "kv_cache_tokens": None,
            "url": endpoint.url,
            "model": self.model,
            "models": None if listed is None else sorted(listed),
            "exposed": endpoint.exposed,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.active} generations"
        return f"<EndpointSession {self.endpoint.url} {self.model}, {state}>"

    @property
    def closed(self) -> bool:
        """Whether nothing can be generated any more."""
        return self._closed

    @property
    def active(self) -> int:
        """Number of generations that wait or run."""
        return len(self._streams)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for a generation."""
        return bool(self._streams)

    def memory(self) -> None:
        """Return None: what a server takes, only its own host knows."""

    def generate(
        self, prompt: Prompt, sampling: Sampling | None = None, **options: Any
    ) -> ServedGeneration:
        """Start a generation; it streams while others run.

        Args:
            prompt: Text or token ids to complete (/completions), or chat messages, each with
                "role" and "content" (/chat/completions).
            sampling: Options; `options` change single ones, as in `temperature=0.8`.
            options: Fields of `Sampling`.

        Raises:
            SpecError: An option is unknown or ill-typed.
            InputError: The key is not there any more.
            RequestError: The prompt is none, or an option is one that servers lack.
            SessionError: The session is closed.
        """
        sampling = (sampling or Sampling()).replace(**options) if options else sampling
        sampling = (sampling or Sampling()).with_seed()
        sampling.refuse(self.lacks)
        fields = prompt_fields(prompt)
        body = request_body(fields, self.model, sampling, self.endpoint.extra)
        with self._lock:
            if self._closed:
                raise SessionError("This session is closed. Open the endpoint again.")
            path = PATHS[next(iter(fields))]
            stream = Stream(self._caller, path, body, sampling, self._ended, count=self._count)
            self._streams.add(stream)
        self._clock.watch(stream)
        stream.start()
        return stream.generation

    def _ended(self, stream: Stream) -> None:
        self._streams.discard(stream)
        self._clock.forget(stream)

    def close(self) -> None:
        """Close all connections; running generations fail. Closing twice changes nothing."""
        with self._lock:
            self._closed = True
            running = list(self._streams)
        for stream in running:
            stream.fail(SessionError("The session was closed while this generation ran."))
        for stream in running:
            stream.join(5.0)
        self._clock.join(5.0)


def _base(url: str) -> str:
    """Return where the API begins.

    Raises:
        InputError: It is no address of http or https, or it carries a secret.
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # Not repeated here: what it carries may be secret.
        raise InputError(
            "The URL carries a user, a password, a query or a fragment. Give the plain address, "
            "and the key as key_env, the name of an environment variable."
        )
    if parts.scheme not in ("http", "https") or not host:
        raise InputError(
            f"{url!r} is no URL of http or https. Give one such as http://127.0.0.1:8000/v1."
        )
    path = parts.path.rstrip("/")
    for suffix in _SUFFIXES:
        path = path.removesuffix(suffix)
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def _only(listed: Mapping[str, Any] | None, url: str) -> str:
    """Return the only model of a server.

    Raises:
        InputError: It lists none or several.
    """
    if listed and len(listed) == 1:
        return next(iter(listed))
    has = f"it has {', '.join(sorted(listed))}" if listed else "it does not list what it has"
    raise InputError(f"Name the model that {url} shall use (model=...): {has}.")


def _meta(about: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = about.get("meta")
    return meta if isinstance(meta, dict) else {}
