"""A thread that prepares the next items while the present one is used."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

# How often a thread that waits looks whether it should end.
_POLL_SECONDS = 0.1
_LOOK_SECONDS = 0.01


class Prefetcher:
  """Takes items from an iterator in a thread of its own, two ahead."""

  def __init__(self, items: Iterator[Any]):
    self._items = items
    # One here and one in the thread's hands are two.
    self._ready: queue.Queue = queue.Queue(maxsize=1)
    self._stopping = threading.Event()
    self._error: BaseException | None = None
    self._thread = threading.Thread(
      target=self._run, name="prefetch", daemon=True
    )
    self._thread.start()
    # A thread in the middle of native code must not see the interpreter end.
    atexit.register(self.close)

  def get(self, *, while_waiting: Callable[[], None] = lambda: None) -> Any:
    """The next item.

    Args:
      while_waiting: called now and then until it is there.

    Raises:
      Exception: what the iterator raised, as it was.
      StopIteration: after its last item.
      RuntimeError: after `close`.
    """
    while not self._stopping.is_set():
      try:
        return self._ready.get(timeout=_LOOK_SECONDS)
      except queue.Empty:
        while_waiting()
        if self._thread.is_alive() or not self._ready.empty():
          continue
      if self._error is not None:
        raise self._error
      raise StopIteration
    raise RuntimeError("the prefetcher has been closed")

  def close(self) -> None:
    """Ends the thread and drops what it prepared."""
    atexit.unregister(self.close)
    self._stopping.set()
    self._thread.join()
    while not self._ready.empty():
      self._ready.get_nowait()

  def _run(self) -> None:
    try:
      for item in self._items:
        if not self._hand_over(item):
          return
    except BaseException as error:
      self._error = error

  def _hand_over(self, item: Any) -> bool:
    """Waits for room; False when asked to stop."""
    while not self._stopping.is_set():
      try:
        self._ready.put(item, timeout=_POLL_SECONDS)
        return True
      except queue.Full:
        continue
    return False
