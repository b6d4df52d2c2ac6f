"""Writing in the background: results are summed up into parts while the device works on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Background:
    """Runs functions one after the other in a thread of its own.

    At most `ahead` of them wait, then `submit` waits for the first: results don't pile up.  What
    a function raises, `submit` or the end of the `with` block raises.
    """

    def __init__(self, ahead: int = 2) -> None:
        self.ahead = ahead
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="naflow-writer")
        self._waiting: deque[Future[None]] = deque()

    def submit(self, function: Callable[[], None]) -> None:
        """Runs the function soon."""
        while self._waiting and (self._waiting[0].done() or len(self._waiting) > self.ahead):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function))

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for what was begun; of an error inside the block, what waits is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for future in self._waiting:
                future.result()
