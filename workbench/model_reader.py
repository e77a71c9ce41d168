"""The model of a form: read when it is named, and again only when its files have changed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workbench.build import DEMO, read_model
from workbench.errors import ModelError
from workbench.model import Model, directory_of
from workbench.spec import BuildSpec

Identity = tuple[tuple[str, int, int, int], ...]
"""Of a directory's files: name, inode, size, and when each was modified in nanoseconds."""

PATIENCE = 30.0
"""Seconds until the hub is asked again for what it did not give: a form asks with every change,
and a network that does not answer takes seconds to say so."""


class ModelReader:
    """Reads models, and remembers the last answer.

    A form asks with every change, and the headers of a large model take longer than an answer may.
    One on the hub that is not on this machine is asked for once; what the hub did not give, again
    after `PATIENCE` seconds.
    """

    def __init__(self, on_hub: Callable[[str], None] = lambda _: None) -> None:
        """Know no model yet.

        Args:
            on_hub: Called with a name before the hub is asked for it, which may take seconds.
        """
        self._last: _Answer | None = None
        self._on_hub = on_hub

    def read(self, spec: BuildSpec) -> Model:
        """Return the model that a spec names.

        Raises:
            ModelError: As `Model.read`.
        """
        if self._last is None or not self._last.holds(spec):
            if spec.model != DEMO and directory_of(spec.model) is None:
                self._on_hub(spec.model)
            self._last = _ask(spec)
        if isinstance(self._last.said, ModelError):
            # A new one: raised again, the same would carry the traces of all times before.
            raise ModelError(str(self._last.said))
        return self._last.said


@dataclass(frozen=True)
class _Answer:
    """What a name was found to mean, and until when (`time.monotonic`) nobody asks again."""

    name: str
    revision: str | None
    said: Model | ModelError
    directory: Path | None
    identity: Identity | None
    until: float

    def holds(self, spec: BuildSpec) -> bool:
        """Whether reading the model of a spec would most likely give the same."""
        # A local directory has no revisions.
        is_local = isinstance(self.said, Model) and self.said.commit is None
        return (
            self.name == spec.model
            and (is_local or self.revision == spec.revision)
            and directory_of(spec.model) in (None, self.directory)
            and self.identity is not None
            and self.identity == _identity(self.directory)
            and time.monotonic() < self.until
        )


def _ask(spec: BuildSpec) -> _Answer:
    """Read a model; what is wrong with a directory is looked at anew each time."""
    said: Model | ModelError
    try:
        said = read_model(spec)
    except ModelError as error:
        said, directory = error, directory_of(spec.model)
        until = 0.0 if directory else time.monotonic() + PATIENCE
    else:
        directory = said.path or directory_of(spec.model)
        until = time.monotonic() + PATIENCE if said.unread else math.inf
    return _Answer(spec.model, spec.revision, said, directory, _identity(directory), until)


def _identity(directory: Path | None) -> Identity | None:
    """Return what changes when a file of a directory does; empty where there is none.

    None where nobody can tell, such as for one that was removed: reading it says so.
    """
    if directory is None:
        return ()
    try:
        with os.scandir(directory) as entries:
            stats = [(entry.name, _stat(entry)) for entry in entries]
    except OSError:
        return None
    return tuple(sorted((n, s.st_ino, s.st_size, s.st_mtime_ns) for n, s in stats))


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    """Return what is known of a file, or of a link whose file is gone."""
    try:
        return entry.stat()
    except OSError:
        return entry.stat(follow_symlinks=False)
