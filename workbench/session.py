"""Sessions: an engine loaded in a worker process of its own."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil

from workbench.backends import get_backend
from workbench.errors import CrashError, RequestError, SessionError, ToolchainError
from workbench.generation import Generation, going_on, prompt_fields
from workbench.process import Worker, crash_of, describe_exit, no_message
from workbench.sampling import Sampling
from workbench.scores import Score, Scoring, check_room
from workbench.session_log import SessionLog
from workbench.session_peak import Meter, SessionPeak
from workbench.toolchain import Toolchain

LOADING = {"import": "importing the runtime", "load": "loading the engine"}
"""What a worker does until its session is ready, in order, with words for people."""


class Session:
    """An engine in a worker process of its own; a context manager.

    Closing ends the worker and frees everything. If the worker dies, its generations fail with a
    SessionError and this process lives on.
    """

    def __init__(
        self,
        directory: Path,
        backend: str,
        limits: Mapping[str, Any],
        toolchain: Toolchain,
        *,
        log: IO[bytes] | None = None,
        mounts: Sequence[Path] = (),
        release: Callable[[], None] = lambda: None,
        measured: Callable[[SessionPeak], None] = lambda _: None,
        stage: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Load the engine in `directory`; returns when it can generate.

        Args:
            directory: The engine's files.
            backend: Name of the backend that runs it.
            limits: What the session gives to the runtime and enforces, see `Backend.limits`.
            toolchain: Where the worker runs.
            log: File for what the worker prints, opened for reading too; a temporary one by
                default.
            mounts: What it reads outside the engine's directory, for toolchains in containers.
            release: Called when the engine's files are not needed any more; perhaps twice.
            measured: Called with the peak of memory when a session is closed that has generated.
            stage: Called with each of `LOADING` that begins while it loads.

        Raises:
            SessionError: The engine cannot be loaded; a CrashError where a signal ended the worker.
            ToolchainError: The worker cannot be started.
        """
        self.limits = dict(limits)
        self._log = SessionLog(log, backend)
        self._generations: dict[int, Generation | Scoring] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._closed = False
        self._error: SessionError | None = None
        self._backend = backend
        self._release, self._measured = release, measured
        self._meter = Meter()
        try:
            self._worker = Worker(
                toolchain, "session", self._log.file, [directory.absolute(), *mounts]
            )
        except BaseException:
            self._let_go()
            raise
        self._messages = self._worker.messages()
        try:
            self._worker.send(
                op="open", backend=backend, engine=str(directory.absolute()), limits=self.limits
            )
            self.facts = self._await_ready(stage)
            # What its backend lacks in any case, and what depends on its limits and release.
            self.lacks: Mapping[str, str] = {
                **get_backend(backend).lacks,
                **self.facts.get("lacks", {}),
            }
        except BaseException:
            # Also when loading is interrupted: nothing of it may stay in memory.
            self._worker.kill()
            self._abandon()
            raise
        self._reader = threading.Thread(target=self._read, name="workbench-session", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            # What it still computes is for nobody.
            self._worker.kill()
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"process {self.pid}, {self.active} generations"
        return f"<Session {state}>"

    @property
    def closed(self) -> bool:
        """Whether nothing can be generated any more."""
        return self._closed or self._error is not None

    @property
    def error(self) -> SessionError | None:
        """Why it ended on its own; None while it lives, and when it was closed."""
        return self._error

    @property
    def active(self) -> int:
        """Number of generations that wait or run in the worker, stopped ones until it heard."""
        return len(self._generations)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for a generation or a score."""
        return any(not one.finished.is_set() for one in list(self._generations.values()))

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._worker.pid

    @property
    def scores(self) -> bool:
        """Whether it can score a text."""
        return get_backend(self._backend).scores

    def memory(self) -> int | None:
        """Return the resident memory of the worker and what it started, or None when it is gone.

        In bytes. TensorRT-LLM has the engine in processes of its own.
        """
        try:
            worker = psutil.Process(self._worker.pid)
            tree = [worker, *worker.children(recursive=True)]
            return sum(int(process.memory_info().rss) for process in tree)
        except psutil.NoSuchProcess:
            return None

    def generate(
        self,
        prompt: str | Sequence[int] | Sequence[Mapping[str, str]],
        sampling: Sampling | None = None,
        *,
        said: Sequence[int] = (),
        **options: Any,
    ) -> Generation:
        """Start a generation; it streams while others run.

        Args:
            prompt: Text to complete; or token ids; or chat messages, each with "role" and
                "content", which the model's chat template turns into text.
            sampling: Options; `options` change single ones, as in `temperature=0.8`.
            said: Token ids with which the answer to a prompt of token ids begins; it goes on from
                them. They count as output: of `max_tokens`, what is left of it is generated.
            options: Fields of `Sampling`.

        Raises:
            SpecError: An option is unknown or ill-typed.
            RequestError: The prompt is none, a message lacks its role or content, an option is
                one that this backend lacks, or an answer with a form would go on from `said`.
            SessionError: The session is closed or its worker died.
        """
        sampling = (sampling or Sampling()).replace(**options) if options else sampling
        sampling = (sampling or Sampling()).with_seed()
        sampling.refuse(self.lacks)
        fields = going_on(prompt_fields(prompt), said, sampling) if said else prompt_fields(prompt)
        with self._lock:
            self._check_open()
            number = next(self._numbers)
            generation = Generation(sampling, functools.partial(self._cancel, number))
            self._generations[number] = generation
        try:
            self._worker.send(
                op="generate",
                id=number,
                sampling=sampling.model_dump(mode="json"),
                said=len(said),
                **fields,
            )
        except OSError:
            # The worker is gone; the thread that reads its channel is about to say why.
            generation.finished.wait(5.0)
        return generation

    def score(
        self,
        ids: Sequence[int],
        *,
        top: int = 5,
        start: int = 1,
        begin: int = 0,
        timeout: float | None = 300.0,
    ) -> list[Score]:
        """Return the probability of each token of a text, and of the most probable ones there.

        Generations that run wait meanwhile. OpenVINO loads the engine's graph once more for this,
        at the first time: the worker then takes about the weights' memory again, which has to be
        free.

        Args:
            ids: The text: a prompt's tokens and those that were generated.
            top: Number of alternatives at each place.
            start: The first token that is scored; the very first of a text has no score.
            begin: Where the text begins that is told: the texts of an answer's tokens are those
                that they have in the answer, without the prompt before it.
            timeout: Seconds to wait.

        Raises:
            RequestError: The backend has no scores, the text is not one for this engine, or there
                is no room for the graph.
            SessionError: The session is closed or its worker died.
            TimeoutError: There is no answer after `timeout` seconds.
        """
        if not self.scores:
            raise RequestError(f"The backend {self._backend} cannot score a text.")
        if not self._meter.scored:
            check_room(self.facts.get("scoring_bytes", 0))
        scoring, self._meter.scored = Scoring(), True
        with self._lock:
            self._check_open()
            number = next(self._numbers)
            self._generations[number] = scoring
        with contextlib.suppress(OSError):  # the worker is gone: the end is on its way
            self._worker.send(
                op="score", id=number, ids=list(ids), top=top, start=start, begin=begin
            )
        return scoring.wait(timeout)

    def _check_open(self) -> None:
        if self._error:
            raise self._error
        if self._closed:
            raise SessionError("This session is closed. Open the engine again.")

    def _cancel(self, number: int) -> None:
        """End a generation here at once; its place is taken until the worker has heard.

        It hears between two steps of the engine, and a prefill may be one of many seconds.
        """
        generation = self._generations.get(number)
        if isinstance(generation, Generation):
            generation.stop()
        with contextlib.suppress(OSError):  # the worker is gone: the end is on its way
            self._worker.send(op="cancel", id=number)

    def close(self) -> None:
        """End the worker; running generations fail. Closing twice changes nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        peak = None
        if self._error is None:
            with contextlib.suppress(OSError):  # it dies at this moment: its channel is closed
                peak = self._meter.peak(self.pid)
        # Processes on a GPU take longer to let go of it.
        self._worker.close(patience=30.0 if get_backend(self._backend).uses_gpu else 5.0)
        self._reader.join(5.0)
        self._let_go()
        if peak:
            self._measured(peak)

    def _await_ready(self, stage: Callable[[str], None]) -> dict[str, Any]:
        for message in self._messages:
            if message["event"] == "ready":
                return message
            if message["event"] == "stage":
                stage(message["name"])
            if message["event"] == "error":
                why = message["message"]
                if not message["expected"]:
                    why = self._log.explanation(self._worker.close()) or why
                raise SessionError(f"The engine was not loaded. {why}")
        status = self._worker.close()
        text = f"The engine was not loaded: its worker {describe_exit(status)}."
        text += self._log.last_words()
        if why := self._log.explanation(status):
            text = f"The engine was not loaded. {why}"
        number = crash_of(status)
        raise CrashError(text, number) if number else SessionError(text)

    def _abandon(self) -> None:
        """Let go of everything when loading failed."""
        self._closed = True
        self._worker.close()
        self._let_go()

    def _let_go(self) -> None:
        self._release()
        self._log.close()

    def _read(self) -> None:
        """Hand the worker's messages to their generations (runs in a thread)."""
        why, lie = "", ""
        try:
            for message in self._messages:
                why = self._read_one(message) or why
        except ToolchainError as error:
            lie = str(error)
        except (KeyError, TypeError, ValueError):
            lie = str(no_message(message))
        self._end_all(why, lie)

    def _read_one(self, message: Mapping[str, Any]) -> str:
        """Take one message; return why the worker is about to end, if it says so."""
        if message["event"] == "tokens":
            for number, ids, text, logprobs, *more in message["batch"]:
                generation = self._generations.get(number)
                if isinstance(generation, Generation):
                    # First, for whoever the tokens wake up.
                    generation.cache_usage = message.get("cache_usage", generation.cache_usage)
                    generation.take_tokens(ids, text, logprobs, message["time"], *more)
        elif message["event"] == "error":
            return str(message["message"])
        else:
            self._hand_over(message)
        return ""

    def _hand_over(self, message: Mapping[str, Any]) -> None:
        generation = self._generations.get(message["id"])
        if generation is None:
            return
        if message["event"] == "end":
            self._meter.count(list(self._generations.values()), generation)
        if message["event"] in ("end", "refused", "scored"):
            # Before its waiters wake up: they may ask what is still active.
            del self._generations[message["id"]]
        try:
            generation.take(message)
        except (KeyError, TypeError, ValueError):
            # It has not ended; what ends all that run shall reach it too.
            self._generations[message["id"]] = generation
            raise

    def _end_all(self, why: str, lie: str = "") -> None:
        """Nothing more will come for anyone: the channel is closed, or nobody can rely on it."""
        with self._lock:
            if self._closed:
                error = SessionError("The session was closed while this generation ran.")
            else:
                if lie:
                    self._worker.kill()
                status = self._worker.close()
                reason = f" {why}." if why else self._log.last_words()
                ended = lie or f"The engine's worker {describe_exit(status)}.{reason}"
                error = SessionError(f"{ended} Open the engine again to go on.")
                self._error = error
                self._let_go()
            waiting = list(self._generations.values())
            self._generations.clear()
        for generation in waiting:
            generation.fail(error)
