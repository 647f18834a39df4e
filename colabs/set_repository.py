"""Writes the address in repository.txt into the notebooks next to it.

python colabs/set_repository.py
"""

import pathlib
import re
import sys

_HERE = pathlib.Path(__file__).parent
# In badges, and in the cell that clones.
_PLACES = (
  r"(colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+(/blob/)",
  r"(REPOSITORY = \\\"https://github\.com/)[\w.-]+/[\w.-]+(\\\")",
)


def main() -> int:
  """Rewrites what differs; returns the exit status."""
  address = (_HERE / "repository.txt").read_text().strip()
  if not re.fullmatch(r"[\w.-]+/[\w.-]+", address):
    print(f"error: repository.txt has {address!r}, not OWNER/NAME")
    return 2
  for path in sorted(_HERE.glob("*.ipynb")):
    before = path.read_text(encoding="utf-8")
    after = before
    for pattern in _PLACES:
      after = re.sub(pattern, rf"\g<1>{address}\g<2>", after)
    if after != before:
      path.write_text(after, encoding="utf-8")
      print(f"changed {path.name}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
