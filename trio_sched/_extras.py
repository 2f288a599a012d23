"""Optional dependencies: what to tell whoever uses a part whose extra is not installed."""

from __future__ import annotations

import importlib

from trio_sched._errors import TrioSchedError

__all__ = ["MissingExtraError", "require"]


class MissingExtraError(TrioSchedError, ImportError):
    """A part of the package was used whose optional dependencies are not installed.

    Attributes: `extra` (the name to install), `missing` (the module that could not be imported).
    """

    def __init__(self, extra: str, missing: str) -> None:
        super().__init__(extra, missing)
        self.extra = extra
        self.missing = missing

    def __str__(self) -> str:
        return f"{self.missing} is not installed; run: pip install 'trio_sched[{self.extra}]'"


def require(extra: str, *modules: str) -> None:
    """Raise `MissingExtraError` unless all `modules`, which `extra` installs, can be imported."""
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(extra, error.name or extra) from error
