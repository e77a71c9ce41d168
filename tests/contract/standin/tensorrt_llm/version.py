"""The version that is played."""

from . import _settings

__version__ = _settings.VERSION

__all__ = ["__version__"]
