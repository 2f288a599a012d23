"""What sends the requests of a client: the HTTP client within it, and that one's transports, as httpx has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

__all__ = ["http_clients"]


def http_clients(client: object) -> Iterator[tuple[object, list[object]]]:
    """The client, and what an SDK's client keeps within it, each with its transports, as far as it has any.

    The first transport is for all addresses for which no other is mounted; None where there is none.
    """
    for holder in (client, getattr(client, "_client", None)):
        mounts: object = getattr(holder, "_mounts", None)
        mounted = cast("Mapping[object, object]", mounts).values() if isinstance(mounts, Mapping) else ()
        # None stands for an address that takes the first transport.
        yield holder, [getattr(holder, "_transport", None), *(each for each in mounted if each is not None)]
