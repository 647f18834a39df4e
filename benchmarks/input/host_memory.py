"""The memory of a benchmark's own process."""

from __future__ import annotations

import os
import pathlib


def resident_bytes() -> int:
  """Memory that this process holds, as Linux tells it."""
  pages = pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()
  return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")
