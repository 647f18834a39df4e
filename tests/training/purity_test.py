"""Purity of neighbours: numbers of the public code, whose labels, and where."""

import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import methods
from paws_jax.data import load_dataset
from paws_jax.methods import base
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import purity
from tests import golden_ssl
from tests import own_data_runs

pytestmark = pytest.mark.unoptimized

FILES = {
  "msf_step": "purity",
  "msf_k1": "purity",
  "msf_scaled": "purity",
  "msf_wrap": "purity",
  "msf_w4": "purity",
  "sup_step": "purity_true",
  "sup_noisy": "purity_true",
  "sup_notfull": "purity_true",
  "sup_all": "purity_true",
  "sup_w4": "purity_true",
}


def _bank(arrays):
  """The bank after the step; of every row the image is its place."""
  batch_size = len(arrays["query"])
  index = np.arange(len(arrays["bank"]), dtype=np.int32)
  index[arrays["bank_index_after"] < 0] = -1
  bank = {
    "rows": arrays["bank_after_f64"].astype(np.float32),
    "index": index,
    "tag": arrays["bank_label_after"],
  }
  return {
    key: value.reshape(-1, batch_size, *value.shape[1:])
    for key, value in bank.items()
  }


def _true_labels(arrays):
  """Of the bank's rows after the step."""
  if "bank_true_label" not in arrays:
    return arrays["bank_label_after"]
  labels = arrays["bank_true_label"].copy()
  first = arrays["pointer"]
  labels[first : first + len(arrays["query"])] = arrays["true_label"]
  return labels


def _measure(name, labels, num_devices=1):
  """The purity of a file, as a run measures it."""
  arrays, config = golden_ssl.load(f"cmsf/{name}")
  bank, extra = _bank(arrays), {"target": {}}
  if name.startswith("msf"):
    del bank["tag"]
    fields = {"name": "msf", "k": config["k"]}
  else:
    k = 0 if config["k"] == "all" else config["k"]
    fields = {"name": "cmsf", "constraint": "labels", "k": k}
    extra["labels"] = jnp.zeros(1, jnp.int32)
  method = methods.create(
    config_lib.method_section(fields["name"]).to_dict() | fields,
    encoder=None,
    label_smoothing=0.0,
    axis_name=mesh_lib.AXES,
  )
  mesh = mesh_lib.make_mesh(jax.devices()[:num_devices])
  experiment = types.SimpleNamespace(
    trainer=types.SimpleNamespace(method=method, mesh=mesh),
    dataset=types.SimpleNamespace(true_labels=labels(arrays)),
  )
  step = int(arrays["pointer"]) // len(arrays["query"]) + 1
  state = types.SimpleNamespace(extra=extra | {"bank": bank})
  found = purity.Purity(experiment)(state, step)
  return found, float(arrays.get(FILES.get(name), np.nan))


@pytest.mark.parametrize(
  ("name", "num_devices"),
  [
    *((name, 1) for name in FILES),
    ("msf_w4", 4),
    ("sup_w4", 2),
    ("sup_w4", 4),
  ],
)
def test_it_equals_the_public_codes(name, num_devices):
  found, expected = _measure(name, _true_labels, num_devices)
  assert found == {"purity": pytest.approx(expected, abs=1e-6)}


def test_members_of_small_classes_are_all_pure():
  """The public code chooses others where there are fewer than k."""
  assert _measure("sup_few", _true_labels)[0] == {"purity": 1.0}


def test_labels_that_are_not_known_are_left_out():
  def nothing(arrays):
    return np.full(len(arrays["bank"]), -1)

  assert _measure("msf_step", nothing)[0] == {}
  assert _measure("sup_noisy", nothing)[0] == {}

  def of_old_rows(arrays):
    labels = _true_labels(arrays).copy()
    first = arrays["pointer"]
    labels[first : first + len(arrays["query"])] = -1
    return labels

  # Those of the step's own images are missing.
  assert _measure("msf_step", of_old_rows)[0] == {}


def test_noise_hides_true_labels_from_training_alone():
  """By labels that training has, the neighbours are all of one class."""
  arrays, _ = golden_ssl.load("cmsf/sup_noisy")
  seen = _measure("sup_noisy", lambda arrays: arrays["bank_label_after"])[0]
  assert seen == {"purity": 1.0}
  assert arrays["purity_true"] < 0.7


def test_methods_that_move_images_to_no_others_have_none():
  kinds = {name for name, kind in methods.METHODS.items() if kind().has_members}
  assert kinds == {"msf", "cmsf"}
  experiment = types.SimpleNamespace(
    trainer=types.SimpleNamespace(method=base.Method(), mesh=None),
    dataset=types.SimpleNamespace(true_labels=np.zeros(3, np.int32)),
  )
  assert purity.Purity(experiment)(None, 1) == {}


@pytest.mark.parametrize("layout", ["memory", "folders", "table", "list"])
def test_true_labels_are_those_of_the_data(layout, tmp_path, monkeypatch):
  monkeypatch.chdir(own_data_runs.write(tmp_path))

  def load(**changes):
    recipe = config_lib.resolve(own_data_runs.config(layout, **changes))
    return load_dataset.load(recipe.data, recipe.views)

  plain, noisy = load(), load(data__label_noise=0.4, data__label_noise_seed=4)
  np.testing.assert_array_equal(noisy.true_labels, plain.true_labels)
  ids = plain.split.labelled_ids
  np.testing.assert_array_equal(plain.true_labels[ids], plain.labelled.labels)
  assert (noisy.known_labels[ids] != plain.true_labels[ids]).any()
  assert len(plain.true_labels) == len(plain.train_images)


def test_only_the_evaluation_of_a_run_reads_true_labels():
  package = pathlib.Path(purity.__file__).parents[1]
  readers = {
    str(path.relative_to(package))
    for path in package.rglob("*.py")
    if ".true_labels" in path.read_text()
  }
  assert readers == {"training/purity.py"}
