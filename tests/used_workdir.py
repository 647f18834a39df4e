"""A directory that a run has used, and its recipe with some fields changed."""

from paws_jax import config as config_lib
from paws_jax.runs import workdir


def recipe(**changes):
  """The default recipe; section__field=value changes a field."""
  config = config_lib.base()
  for name, value in changes.items():
    config.update_from_flattened_dict({name.replace("__", "."): value})
  return config_lib.resolve(config)


def make(path, **changes):
  """A workdir with a run that has left a checkpoint."""
  workdir.prepare(path, recipe(**changes))
  (path / workdir.CHECKPOINTS / "55").mkdir(parents=True)
  return path
