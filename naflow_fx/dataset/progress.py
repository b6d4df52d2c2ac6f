"""What a person sees of a run: a bar on a terminal, lines in a pipe, nothing if not wanted."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from naflow_fx.view.terminal import printable, say

EVERY = 10.0  # seconds between lines


class Progress:
    """Rate, time left and the device's share of time, of photos done in this call.

    Attributes:
        total, before: photos of the job, and those of them that were done before.
        done, failed: photos done in this call, and those of them without a row.
        busy: seconds that the devices worked, all together; devices: how many there are.
    """

    def __init__(self, total: int, before: int, devices: int = 1, label: str = "") -> None:
        self.total, self.before, self.devices, self.label = total, before, devices, label
        self.done, self.failed, self.busy = 0, 0, 0.0
        self._begin: float | None = None
        self._end: float | None = None

    def begin(self, ago: float = 0.0) -> None:
        """The first photos go to the device now, or went `ago` seconds: time counts from there."""
        self._begin = self._begin or time.monotonic() - ago

    def add(self, done: int, failed: int, busy: float) -> None:
        """Photos that are done, and how long a device worked on them."""
        self.done, self.failed, self.busy = self.done + done, self.failed + failed, self.busy + busy
        self.show()

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
        return (f"{self.label}{done}/{self.total} photos{lost}, {self.rate:.3g}/s"
                f"{left if done < self.total else ''}, device busy {self.share:.0%}")  # fmt: skip

    def note(self, text: str) -> None:
        """A line for people."""

    def show(self) -> None:
        """What changed."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The clock stops."""
        self._end = time.monotonic()


class Lines(Progress):
    """Log lines on stderr, one every ten seconds and one at the end."""

    _shown = 0.0

    def note(self, text: str) -> None:
        """A line of its own."""
        say(f"naflow-fx: {self.label}{text}", error=True)

    def show(self) -> None:
        """A line, when the last one is old enough."""
        now = time.monotonic()
        if now - self._shown >= EVERY or self.before + self.done == self.total:
            self._shown = now
            say(f"naflow-fx: {self.text()}", error=True)


class Bar(Progress):
    """A bar on the terminal, gone when done."""

    def __init__(self, total: int, before: int, devices: int = 1, label: str = "") -> None:
        super().__init__(total, before, devices, label)
        from naflow_fx.view.progress import progress

        self._rich = progress(shown=True)
        self._task = self._rich.add_task("making the explainer", total=total, completed=before)

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._rich.console.print(printable(text), markup=False, highlight=False)

    def show(self) -> None:
        """The bar moves."""
        self._rich.update(self._task, completed=self.before + self.done, description=self.text())

    def __enter__(self) -> Bar:
        self._rich.start()
        return self

    def __exit__(self, *error: Any) -> None:
        """The bar goes."""
        super().__exit__(*error)
        self._rich.stop()


def make(wanted: bool, total: int, before: int, devices: int = 1, label: str = "") -> Progress:
    """A bar where stderr is a terminal, else lines; silent if not wanted."""
    kind = Progress if not wanted else Bar if sys.stderr.isatty() else Lines
    return kind(total, before, devices, label)


def _span(seconds: float) -> str:
    """A time for people: "45 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
