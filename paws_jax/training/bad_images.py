"""The list of a run's images that cannot be read, in its directory."""

from __future__ import annotations

from etils import epath

from paws_jax import errors
from paws_jax import text
from paws_jax.distributed import agree
from paws_jax.distributed import lifecycle
from paws_jax.runs import files
from paws_jax.training import experiment as experiment_lib

BAD_IMAGES = "bad_images.json"


class BadImages:
  """Keeps bad_images.json up to date with what all processes have found."""

  def __init__(
    self, experiment: experiment_lib.Experiment, workdir: epath.Path
  ):
    self._experiment = experiment
    self._path = workdir / BAD_IMAGES
    self._num_reported = 0

  def report(self) -> None:
    """Lists images that could not be read, and prints how many are new.

    Of several processes all call it.
    """
    labelled = self._experiment.dataset.labelled.images
    bad = {
      name: f"left out as a labelled image: {reason}"
      for name, reason in getattr(labelled, "unreadable", {}).items()
    }
    for name, substitute in self._experiment.pipeline.replaced.items():
      bad[name] = f"replaced by {substitute}"
    # Each process knows of the images that it has read.
    bad = dict(item for each in agree.gather(bad) for item in each.items())
    new = len(bad) - self._num_reported
    if not new or not lifecycle.is_main():
      return
    self._num_reported = len(bad)
    try:
      files.replace_output(self._path, files.to_json(self._known() | bad))
    except OSError as error:
      print(
        f"\n{self._path} could not be written: {error}; unreadable are {bad}"
      )
      return
    images = text.count(new, "more image")
    print(f"\n{images} cannot be read; {self._path} lists all of them")

  def _known(self) -> dict[str, str]:
    """The list as it is there; what is no list is kept by the writer."""
    try:
      return files.read_object(self._path) or {}
    except errors.WorkdirError:
      return {}
