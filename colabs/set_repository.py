"""Writes the address in repository.txt into all files that name it.

python colabs/set_repository.py
"""

import re
import sys
from pathlib import Path

_HERE = Path(__file__).parent
# In badges, in the cell that clones, and in the files at the top.
_PLACES = (
  r"(colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+(/blob/)",
  r"(REPOSITORY = \\?\"https://github\.com/)[\w.-]+/[\w.-]+(\\?\")",
  r"((?:repository-code|repo_url): https://github\.com/)[\w.-]+/[\w.-]+()",
)
# Beside the notebooks.
FILES = ("setup.py", "CITATION.cff", "docs/site/mkdocs.yml")


def main() -> int:
  """Rewrites what differs; returns the exit status."""
  address = (_HERE / "repository.txt").read_text().strip()
  if not re.fullmatch(r"[\w.-]+/[\w.-]+", address):
    print(f"error: repository.txt has {address!r}, not OWNER/NAME")
    return 2
  others = [_HERE.parent / name for name in FILES]
  for path in [*sorted(_HERE.glob("*.ipynb")), *filter(Path.exists, others)]:
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
