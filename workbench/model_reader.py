"""The model of a form: read when it is named, and again only when its files have changed."""

from __future__ import annotations

import os
from pathlib import Path

from workbench.build import read_model
from workbench.model import Model
from workbench.spec import BuildSpec

Identity = tuple[tuple[str, int, int, int], ...]
"""Of a directory's files: name, inode, size, and when each was modified in nanoseconds."""


class ModelReader:
    """Reads models, and remembers the last one.

    A form asks with every change, and the headers of a large model take longer than an answer may.
    One on the hub that is not on this machine is asked for once.
    """

    def __init__(self) -> None:
        self._last: tuple[tuple[str, str | None], Identity | None, Model] | None = None

    def read(self, spec: BuildSpec) -> Model:
        """Return the model that a spec names.

        Raises:
            ModelError: As `Model.read`.
        """
        name = (spec.model, spec.revision)
        if self._last:
            known, identity, model = self._last
            # A local directory has no revisions.
            same = known == name or (known[0] == name[0] and model.commit is None)
            if same and identity is not None and identity == _identity(model.path):
                return model
        model = read_model(spec)
        self._last = (name, _identity(model.path), model)
        return model


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
