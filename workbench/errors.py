"""Every error that the workbench raises on purpose.

    WorkbenchError
    ├── InputError            something the user gave; also a ValueError
    │   ├── SpecError         a build parameter: unknown, ill-typed or refused by a rule
    │   ├── ModelError        a model that is missing, damaged or unsupported
    │   └── RequestError      a generation that this session cannot serve
    ├── ToolchainError        the interpreter or package that a backend needs
    ├── StoreError            an engine or the store that holds it
    ├── JobError              a job that failed, was cancelled or gives no sign of life
    ├── SessionError          the worker behind an open engine
    │   └── CrashError        it was ended by a signal while it loaded the engine
    └── TrialError            a measurement that is missing, failed or cannot be true

A message says what happened, what was expected and what to do, in sentences that a panel can
show as they are.
"""

from __future__ import annotations

from workbench.units import printable


class WorkbenchError(Exception):
    """Base of all errors raised on purpose; `str(error)` is fit to be shown to a user.

    Also where it quotes a log, a model or a file: IPython prints it into terminals as it is.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class InputError(WorkbenchError, ValueError):
    """Something the user gave cannot be used."""


class SpecError(InputError):
    """A build parameter is unknown, ill-typed, out of range or refused by a rule."""


class ModelError(InputError):
    """A model is missing, damaged or of a kind that is not supported."""


class RequestError(InputError):
    """A generation asks for something that the open engine cannot do."""


class ToolchainError(WorkbenchError):
    """The interpreter or a package that a backend runs in is missing or does not answer."""


class StoreError(WorkbenchError):
    """An engine is missing, damaged or cannot be published."""


class JobError(WorkbenchError):
    """A job failed, was cancelled or gives no sign of life."""


class SessionError(WorkbenchError):
    """The worker process behind an open engine died or did not answer."""


class CrashError(SessionError):
    """The worker crashed while it loaded an engine; `number` is the signal that ended it."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


class TrialError(WorkbenchError):
    """A trial is missing, failed, or has figures that cannot be true."""
