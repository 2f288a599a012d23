"""Where rehearsal providers are reached: what a server and its clients have in common."""

from __future__ import annotations

__all__ = ["ProviderAddress"]


class ProviderAddress:
    """The address that providers are served at, by their names."""

    __slots__ = ("_host", "_port")

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    @property
    def host(self) -> str:
        """The address listened on."""
        return self._host

    @property
    def port(self) -> int:
        """The port listened on, also when port 0 was asked for."""
        return self._port

    @property
    def netloc(self) -> str:
        """Host and port as they stand in a URL."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    def base_url(self, provider: str) -> str:
        """What an OpenAI client takes as its `base_url`."""
        return f"http://{self.netloc}/{provider}/v1"
