"""What can go wrong before a rehearsal provider serves its first request."""

from __future__ import annotations

from trio_sched._errors import InvalidValueError, TrioSchedError

__all__ = ["NotLoopbackError", "RehearsalStartError"]


class NotLoopbackError(InvalidValueError):
    """A rehearsal provider was to listen where other machines could reach it."""

    def __init__(self, host: str) -> None:
        super().__init__("host", host, "a loopback address")

    def __str__(self) -> str:
        return (
            f"the rehearsal provider listens on loopback only, because it answers whoever reaches it: "
            f"host must be localhost, ::1 or an address in 127.0.0.0/8, got {self.value!r}"
        )


class RehearsalStartError(TrioSchedError):
    """The process of a rehearsal provider did not get ready; what it had to say is on the standard error stream.

    Attributes: `returncode` (None: it was still starting when its time was over).
    """

    def __init__(self, returncode: int | None) -> None:
        super().__init__(returncode)
        self.returncode = returncode

    def __str__(self) -> str:
        if self.returncode is None:
            return "the rehearsal provider's process did not get ready in time"
        return f"the rehearsal provider's process ended with exit code {self.returncode} before it was ready"
