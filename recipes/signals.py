"""SIGTERM and Ctrl-C: a run that is asked to end finishes what must not be cut, and then ends."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any


# Seconds within which a second Ctrl-C is the first one, sent on by a launcher that the terminal told as well.
_ECHO = 1.0
_PLACE = "before training began; there was nothing to save"


class StoppedBySignalError(BaseException):
    """A run was asked to end, and did; no `except Exception` on the way may take it for an error.

    Args:
        number: of the signal.
        what: the message, which says what has been saved.
    """

    def __init__(self, number: int, what: str):
        super().__init__(what)
        self.number = number


class StopSignals:
    """Receives SIGTERM and SIGINT while it is entered.

    Outside `held` the program ends at once. Inside, the signal is only noted, for those who ask; the program ends when `held`
    is left. A second Ctrl-C ends it at once everywhere.

    Attributes:
        received: the signal, or None.
        place: what the message of a run that ends at once says of where it was, and of what is saved.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self.place = _PLACE
        self._entered = self._held = self._process = 0
        self._before: dict[signal.Signals, Any] = {}
        self._when = 0.0

    def __enter__(self):
        self._entered += 1
        # Only a program's main thread can receive signals.
        if self._entered == 1 and threading.current_thread() is threading.main_thread():
            self.received, self.place, self._process = None, _PLACE, os.getpid()
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error):
        self._entered -= 1
        while self._before and not self._entered:
            signal.signal(*self._before.popitem())

    def _receive(self, number, frame):
        if os.getpid() != self._process:  # a worker that was forked: the parent decides, and ends it by SIGTERM
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self.received is not None:
            if number == signal.SIGINT and time.monotonic() - self._when > _ECHO:
                raise KeyboardInterrupt
            return
        self.received, self._when = signal.Signals(number), time.monotonic()
        if not self._held:
            self.stop(self.place)
        if number == signal.SIGINT:
            # Not by `print`: the signal may have come in the middle of one.
            os.write(2, b"\ntheatre: ends after this step, and saves it; Ctrl-C again ends it at once\n")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing inside be cut; whoever takes long in there asks for `received` himself."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self.received is not None and not self._held:
            self.stop(self.place)

    def stop(self, what: str):
        """End the program.

        Raises:
            StoppedBySignalError: always.
        """
        number = self.received or signal.SIGTERM
        raise StoppedBySignalError(number, f"stopped by {number.name} {what}")


# Signals go to a process as a whole.
SIGNALS = StopSignals()
