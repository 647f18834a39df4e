"""How fast the labelled images vote, and how fast neighbors are found.

  python -m benchmarks.evaluate
  python -m benchmarks.evaluate --large

Queries per second of

  chunked: `evaluate.soft_nn_probabilities` as it is, which meets the supports
      in chunks, the way of queries to the device and of votes back included
  plain: one softmax over the whole matrix of similarities, for all queries at
      once, with embeddings on the device and votes left there
  neighbors: `nearest_neighbors.nearest` for the 20 nearest

Chunked and plain take turns, window by window, since machines are not equally
fast all the time. `--large` is ImageNet's test set against its 10 % split:
50,000 queries, 128,000 supports, 2,048 dimensions, 1,000 classes; the whole
matrix would be 26 GB, so plain takes the first 1,024 queries. Any size can be
changed. The largest difference of the two votes is printed; the last line is

  ratio: queries per second of chunked / of plain

so above 1 the chunks cost nothing. Embeddings are random: what they are does
not change the time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from paws_jax import losses
from paws_jax.evaluation import neighbors as neighbors_lib
from paws_jax.evaluation import soft_nn

_TEMPERATURE = 0.1
_SMALL = {"queries": 2048, "supports": 16384, "dim": 256, "classes": 100}
_LARGE = {"queries": 50_000, "supports": 128_000, "dim": 2048, "classes": 1000}
_PLAIN_QUERIES = {"small": 2048, "large": 1024}


def main() -> None:
  """Parses the command line, measures and prints."""
  arguments = _parse()
  sizes = _LARGE if arguments.large else _SMALL
  sizes = {k: getattr(arguments, k) or v for k, v in sizes.items()}
  most = _PLAIN_QUERIES["large" if arguments.large else "small"]
  plain_queries = min(arguments.plain_queries or most, sizes["queries"])
  device = jax.devices()[0]
  print(f"{device.platform}: {device.device_kind}; jax {jax.__version__}")
  print(", ".join(f"{v:,} {k}" for k, v in sizes.items()))
  queries, supports, labels = _random(sizes)

  def chunked() -> np.ndarray:
    return soft_nn.soft_nn_probabilities(
      queries,
      supports,
      labels,
      num_classes=sizes["classes"],
      temperature=_TEMPERATURE,
    )

  plain = _plain(queries[:plain_queries], supports, labels, sizes["classes"])
  gap = np.abs(chunked()[:plain_queries] - np.asarray(plain())).max()
  ours, theirs = [], []
  for _ in range(arguments.windows):
    ours.append(_rate(chunked, sizes["queries"]))
    theirs.append(_rate(plain, plain_queries))

  def neighbors() -> tuple[np.ndarray, np.ndarray]:
    return neighbors_lib.nearest(queries, supports, 20)

  neighbors()
  print(f"chunked: {statistics.median(ours):,.0f} queries/s")
  print(
    f"plain: {statistics.median(theirs):,.0f} queries/s, "
    f"{plain_queries:,} at once"
  )
  print(f"neighbors: {_rate(neighbors, sizes['queries']):,.0f} queries/s")
  print(f"largest difference: {gap:.1e}")
  ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
  print(f"ratio in each window: {min(ratios):.2f} to {max(ratios):.2f}")
  print(f"ratio: {statistics.median(ours) / statistics.median(theirs):.2f}")


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--large", action="store_true", help="ImageNet's size")
  for name in (*_SMALL, "plain_queries"):
    parser.add_argument(f"--{name}", type=int, help="instead of the size's own")
  parser.add_argument("--windows", type=int, default=5)
  return parser.parse_args()


def _random(sizes: dict[str, int]) -> tuple[np.ndarray, ...]:
  """Queries and supports, float32 [·, D], and labels."""
  rng = np.random.default_rng(0)
  shape = (sizes["queries"] + sizes["supports"], sizes["dim"])
  rows = rng.standard_normal(shape, np.float32)
  labels = rng.integers(0, sizes["classes"], sizes["supports"])
  return rows[: sizes["queries"]], rows[sizes["queries"] :], labels


def _plain(
  queries: np.ndarray, supports: np.ndarray, labels: np.ndarray, classes: int
) -> Callable[[], jax.Array]:
  """Compiles the vote by the whole matrix."""

  @jax.jit
  def vote(queries, supports, labels):
    rows = jax.nn.one_hot(labels, classes, dtype=queries.dtype)
    return losses.soft_nearest_neighbours(
      queries, supports, rows, temperature=_TEMPERATURE
    )

  arrays = jax.device_put((queries, supports, labels))
  compiled = vote.lower(*arrays).compile()
  return lambda: jax.block_until_ready(compiled(*arrays))


def _rate(function: Callable[[], object], count: int) -> float:
  """Queries per second of one call."""
  start = time.perf_counter()
  function()
  return count / (time.perf_counter() - start)


if __name__ == "__main__":
  main()
