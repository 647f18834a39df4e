"""Makes a data set of emoji: small pictures, nine unequal classes, two artists.

  npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0
  python -m benchmarks.own_images.emoji --output=emoji *.tgz

The classes are the groups of Unicode (people, flags, food, ...), without the
five components. A fifth of the emoji, with the pictures of both artists, is for
tests, so that no test picture has a twin among the others. Pictures of 64
pixels, on white; labels.csv is a manifest in which every picture has a label:
--config.data.labels_per_class chooses those that training may use.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import pathlib
import tarfile
from collections.abc import Sequence

from PIL import Image

_SKIPPED = "Component"
_TEST_SHARE = 0.2


def picture(content: bytes) -> Image.Image:
  """Decodes a picture and puts it on white."""
  image = Image.open(io.BytesIO(content)).convert("RGBA")
  white = Image.new("RGBA", image.size, "white")
  return Image.alpha_composite(white, image).convert("RGB")


def is_test(code: str) -> bool:
  """Whether the pictures of an emoji are for tests, by a hash of its code."""
  digest = hashlib.sha256(code.encode()).digest()
  return int.from_bytes(digest[:4], "big") < _TEST_SHARE * 2**32


def make(archives: Sequence[str], output: pathlib.Path) -> list[dict[str, str]]:
  """Writes pictures and manifest; returns its rows.

  Args:
    archives: of npm, each of one artist.
    output: directory, made if it does not exist.

  Raises:
    ValueError: an archive is not one of emoji-datasource-*.
  """
  rows = []
  for path in archives:
    with tarfile.open(path) as archive:
      listed = json.loads(_read(archive, "package/emoji.json", path))
      package = json.loads(_read(archive, "package/package.json", path))
      vendor = package["name"].removeprefix("emoji-datasource-")
      for emoji in listed:
        if emoji["category"] == _SKIPPED or not emoji[f"has_img_{vendor}"]:
          continue
        name = f"package/img/{vendor}/64/{emoji['image']}"
        label = emoji["category"].replace(" & ", "-").lower()
        place = pathlib.Path("images") / vendor / emoji["image"]
        (output / place).parent.mkdir(parents=True, exist_ok=True)
        picture(_read(archive, name, path)).save(output / place)
        split = "test" if is_test(emoji["unified"]) else "train"
        rows.append({"path": str(place), "label": label, "split": split})
  with open(output / "labels.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, ("path", "label", "split"))
    writer.writeheader()
    writer.writerows(rows)
  return rows


def _read(archive: tarfile.TarFile, name: str, path: str) -> bytes:
  try:
    file = archive.extractfile(name)
  except KeyError:
    file = None
  if file is None:
    raise ValueError(f"{path} has no {name}: give archives of emoji-datasource")
  return file.read()


def main() -> None:
  """Makes the data set that the arguments name."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--output", required=True, help="directory to make")
  parser.add_argument("archives", nargs="+", help="of npm")
  options = parser.parse_args()
  rows = make(options.archives, pathlib.Path(options.output))
  print(f"{len(rows)} pictures in {options.output}")


if __name__ == "__main__":
  main()
