"""A thread that prepares the next items of an iterator."""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

# Intervals at which waiting threads check whether to end.
_POLL_SECONDS = 0.1
_LOOK_SECONDS = 0.01


class Prefetcher:
  """A prefetcher of two items of an iterator, in its own thread."""

  def __init__(self, items: Iterator[Any]):
    self._items = items
    # One item in the queue and one in the thread.
    self._ready: queue.Queue[Any] = queue.Queue(maxsize=1)
    self._stopping = threading.Event()
    self._error: BaseException | None = None
    self._thread = threading.Thread(
      target=self._run, name="prefetch", daemon=True
    )
    self._thread.start()
    # The interpreter must not exit while the thread runs native code.
    atexit.register(self.close)

  def get(self, *, while_waiting: Callable[[], None] = lambda: None) -> Any:
    """Returns the next item.

    Args:
      while_waiting: called repeatedly until the item is ready.

    Raises:
      Exception: the exception of the iterator.
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
    """Ends the thread and discards prepared items."""
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
    """Waits until the queue has room; returns False when stopped."""
    while not self._stopping.is_set():
      try:
        self._ready.put(item, timeout=_POLL_SECONDS)
        return True
      except queue.Full:
        continue
    return False
