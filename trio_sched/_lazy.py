"""Names that a face hands out, each imported from its home when it is first asked for (PEP 562).

So `import trio_sched` costs next to nothing, and whoever uses a part pays for that part. A face says its names three
times: as imports for type checkers, as a table for `lazy_names`, and as `__all__`; tests/test_exports.py compares them.
To read the table off the imports would need the source at run time, which a frozen program does not have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType

__all__ = ["lazy_names"]


def lazy_names(face: str, names_by_home: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of the module `face`. names_by_home: the names of each module, parted by blanks."""
    homes = {name: home for home, names in names_by_home.items() for name in names.split()}

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {face!r} has no attribute {name!r}", name=name, obj=sys.modules[face])
        value: object = getattr(import_module(homes[name]), name)
        setattr(sys.modules[face], name, value)
        return value

    def names() -> list[str]:
        # What the face needs to be a face, `TYPE_CHECKING` and this function, is not what it hands out.
        own = {
            name: value
            for name, value in vars(sys.modules[face]).items()
            if name.startswith("__") or isinstance(value, ModuleType)
        }
        return sorted({*own, *homes})

    return get, names
