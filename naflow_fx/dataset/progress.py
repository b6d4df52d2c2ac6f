"""What a person sees of a run: a bar on a terminal, lines in a pipe, nothing if not wanted."""

from __future__ import annotations

import sys
import time

from naflow_fx.view.progress import progress
from naflow_fx.view.terminal import printable, say

EVERY = 10.0  # seconds between lines


class Progress:
    """Rate, time left and the device's share of time, of photos done in this call.

    On a terminal a bar that is gone when done; else log lines on stderr, one every ten seconds and
    one at the end.

    Attributes:
        total, before: photos of the job, and those of them that were done before.
        done, failed: photos done in this call, and those of them without a row.
        busy: seconds that the devices worked, all together; devices: how many there are.
    """

    def __init__(self, wanted: bool, total: int, before: int, rank: int | None = None) -> None:
        self.total, self.before = total, before
        self._label = "" if rank is None else f"rank {rank}: "
        self.done, self.failed, self.busy, self.devices = 0, 0, 0.0, 1
        self._begin: float | None = None
        self._end: float | None = None
        self._wanted, self._told = wanted, 0.0
        self._bar = progress(shown=wanted and sys.stderr.isatty())
        self._task = self._bar.add_task("making the explainer", total=total, completed=before)

    def begin(self, ago: float = 0.0) -> None:
        """The first photos go to the device now, or went `ago` seconds: time counts from there."""
        self._begin = self._begin or time.monotonic() - ago

    def add(self, done: int, failed: int, busy: float) -> None:
        """Photos that are done, and how long a device worked on them."""
        self.done, self.failed, self.busy = self.done + done, self.failed + failed, self.busy + busy
        completed, now = self.before + self.done, time.monotonic()
        self._bar.update(self._task, completed=completed, description=self.text())
        if self._bar.disable and (now - self._told >= EVERY or completed == self.total):
            self._told = now
            self._say(self.text())

    @property
    def seconds(self) -> float:
        """Since `begin`, to the end."""
        return (self._end or time.monotonic()) - (self._begin or time.monotonic())

    @property
    def rate(self) -> float:
        """Photos a second."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def share(self) -> float:
        """Share of the time that the devices worked."""
        return min(self.busy / (self.seconds * self.devices), 1.0) if self.seconds > 0 else 0.0

    def text(self) -> str:
        """One line."""
        done = self.before + self.done
        left = f", {_span((self.total - done) / self.rate)} left" if self.rate else ""
        lost = f", {self.failed} failed" if self.failed else ""
        return (f"{self._label}{done}/{self.total} photos{lost}, {self.rate:.3g}/s"
                f"{left if done < self.total else ''}, device busy {self.share:.0%}")  # fmt: skip

    def note(self, text: str) -> None:
        """A line for people, above the bar."""
        if self._bar.disable:
            self._say(f"{self._label}{text}")
        else:
            self._bar.console.print(printable(text), markup=False, highlight=False)

    def _say(self, text: str) -> None:
        if self._wanted:
            say(f"naflow-fx: {text}", error=True)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The clock stops, the bar goes."""
        self._end = time.monotonic()
        self._bar.stop()


def _span(seconds: float) -> str:
    """A time for people: "45 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
