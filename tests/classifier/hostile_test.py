"""Classifier directories that are damaged or made to do harm."""

import dataclasses
import functools
import hashlib
import json

import numpy as np
import pytest
from safetensors import numpy as safetensors

from paws_jax import errors
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import files
from paws_jax.classifier import predictions
from tests import random_classifier

_NUMBERS = (None, True, "3", [], {}, {"a": {"b": 1}}, -1, 10**18, 10**400)
_OBJECTS = (None, True, 3, "x", [], [["a"]])
# Values that a field must not have.
SETTINGS = {
  "version": (None, True, "1", 0, 1.0, [], {}, 10**400),
  "temperature": (*_NUMBERS, 0, 1e-300, 1e300, float("nan"), float("inf")),
  "in_domain_temperature": (*_NUMBERS[1:], 0, 1e-300, float("nan")),
  "batch_size": (*_NUMBERS, 0, 1.5, 2**21),
  "class_names": (
    *_OBJECTS,
    {},
    [],
    ["a", " ", "c"],
    ["a", "\ud800", "c"],
    [["a"], "b", "c"],
  ),
  "model": _OBJECTS,
  "origin": _OBJECTS,
  "preprocessing": _OBJECTS,
  "files": (
    *_OBJECTS,
    {},
    {"encoder.safetensors": "0" * 64},
    {"../secret": "0" * 64},
    {"encoder.safetensors": 5, "bank.safetensors": "0" * 64},
    {"encoder.safetensors": "0", "bank.safetensors": "0" * 64},
  ),
}
PREPROCESSING = {
  "on_disk": (None, 1, "yes", {}, True),
  "shape": (None, 3, [9, 12], [9, 12, 2], [0, 12, 1], [9, 10**6, 1], [[9]]),
  "image_size": (None, -1, 1.5, 10**6, {}),
  "eval_resize": (None, -1, "8", 10**6, 4),
  "large_size": (None, 0, 10**6, 10, {}),
  "mean": (None, [], 0.3, ["a"], [[0.3]], [0.1, 0.2], [1e300]),
  "std": (None, [], [0.0], [-1.0], [1e-300], [0.1, 0.2], {}),
  "max_pixels": (None, 0, 1.5, 10**18, {}),
}
MODEL = {
  "name": (None, 3, [], {}, "resnet51"),
  "width": (None, 0, 10**18, 1.5, {}),
  "output_dim": (0, 10**9, "6"),
  "bn_momentum": (1.0, "a", None),
  "dtype": ("int8", []),
  "unknown": (1, {}),
}


@functools.cache
def _made(head):
  return files.pack(vars(random_classifier.make(head=head)))


def _write(directory, changes, *, head=False):
  """Writes files of a classifier; `changes` of arrays or bytes by name."""
  packed = dict(_made(head))
  settings = json.loads(packed.pop(files.SETTINGS))
  names = {"names": json.dumps([f"image {i}" for i in range(7)])}
  for name, change in changes.items():
    if isinstance(change, bytes):
      packed[name] = change
    elif name != files.SETTINGS:
      arrays = change(safetensors.load(packed[name]))
      packed[name] = safetensors.save(arrays, metadata=names)
  settings["files"] = {
    name: hashlib.sha256(content).hexdigest()
    for name, content in packed.items()
  }
  change = changes.get(files.SETTINGS, lambda settings: None)
  if isinstance(change, bytes):
    text = change
  else:
    change(settings)
    text = json.dumps(settings).encode()
  directory.mkdir(exist_ok=True)
  for name, content in {**packed, files.SETTINGS: text}.items():
    (directory / name).write_bytes(content)


def _refused(directory, read=classifier_lib.Classifier.load):
  with pytest.raises(errors.ClassifierError) as raised:
    read(directory)
  assert str(directory) in str(raised.value)
  assert len(str(raised.value)) < 1000
  return str(raised.value)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_out_of_their_range_are_refused(tmp_path, name):
  for value in SETTINGS[name]:
    _write(tmp_path, {files.SETTINGS: lambda s, v=value: s.update({name: v})})
    if name in ("model", "preprocessing", "class_names") and value == {}:
      continue
    _refused(tmp_path, files.settings_in)


@pytest.mark.parametrize(
  ("section", "name"),
  [("preprocessing", name) for name in [*PREPROCESSING, "unknown"]]
  + [("model", name) for name in MODEL],
)
def test_fields_of_a_section_out_of_their_range_are_refused(
  tmp_path, section, name
):
  values = {**PREPROCESSING, "unknown": (1,)} if section != "model" else MODEL
  for value in values[name]:
    _write(
      tmp_path,
      {files.SETTINGS: lambda s, v=value: s[section].update({name: v})},
    )
    assert name in _refused(tmp_path)


@pytest.mark.parametrize("name", PREPROCESSING)
def test_no_field_of_preprocessing_may_be_missing(tmp_path, name):
  _write(tmp_path, {files.SETTINGS: lambda s: s["preprocessing"].pop(name)})
  assert f"no field {name}" in _refused(tmp_path)


def _first(value, name=None):
  """A change that sets the first number of an array."""

  def change(arrays):
    key = name or next(iter(arrays))
    arrays[key] = np.array(arrays[key])
    arrays[key].reshape(-1)[0] = value
    return arrays

  return change


def _map(name, function):
  return lambda arrays: {**arrays, name: function(arrays[name])}


_VARIANCE = "batch_stats/trunk/layer1_0/bn1/var"
_KERNEL = "params/projection/fc1/kernel"


@pytest.mark.parametrize(
  ("name", "change", "problem"),
  [
    (files.BANK, _first(np.nan, "embeddings"), "1 of the 7 embeddings"),
    (files.BANK, _first(3e38, "embeddings"), "1 of the 7 embeddings"),
    (files.BANK, _map("embeddings", lambda x: x > 0), "embeddings bool"),
    (files.BANK, _map("embeddings", np.ravel), "bank of 7 labels but 42"),
    (files.BANK, _map("labels", lambda x: x * 0.5), "labels float64"),
    (files.BANK, _map("labels", lambda x: x[:, None]), "labels int32"),
    (files.BANK, _map("labels", lambda x: x * 0 - 1), "labels from -1"),
    (files.BANK, _map("labels", lambda x: x[:0]), "bank of 0 labels"),
    (files.BANK, _map("thumbnails", np.float32), "thumbnails float32"),
    (files.BANK, _map("thumbnails", lambda x: x[..., :0]), "thumbnails uint8"),
    (files.HEAD, _first(np.inf, "kernel"), "kernel of its head is not finite"),
    (files.HEAD, _first(np.nan, "bias"), "bias of its head is not finite"),
    (files.HEAD, _map("bias", np.int32), "bias of its head is int32"),
    (files.HEAD, lambda a: {"kernel": a["kernel"]}, "bias"),
    (files.ENCODER, _first(np.nan, _KERNEL), f"{_KERNEL} is not finite"),
    (files.ENCODER, _first(-1e-3, _VARIANCE), f"{_VARIANCE} is a variance"),
    (files.ENCODER, _map(_KERNEL, np.int32), f"{_KERNEL} is int32"),
    (files.ENCODER, _map(_KERNEL, np.ravel), f"{_KERNEL} is \\[4096\\]"),
    (files.ENCODER, lambda a: {}, "is missing"),
    (
      files.ENCODER,
      lambda a: {**a, f"{_KERNEL}/below": np.zeros(1)},
      "below is unknown",
    ),
    (files.ENCODER, lambda a: {**a, "a/" * 40_000: np.zeros(1)}, "is unknown"),
    (files.ENCODER, lambda a: {**a, "": np.zeros(1)}, "is unknown"),
  ],
)
def test_arrays_out_of_their_range_are_refused(tmp_path, name, change, problem):
  _write(tmp_path, {name: change}, head=name == files.HEAD)
  with pytest.raises(errors.ClassifierError, match=problem):
    classifier_lib.Classifier.load(tmp_path)


def _header(text, size=0):
  return len(text).to_bytes(8, "little") + text + bytes(size)


@pytest.mark.parametrize("name", [files.SETTINGS, files.BANK, files.ENCODER])
@pytest.mark.parametrize(
  "content",
  [
    b"",
    bytes(200),
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    (2**62).to_bytes(8, "little") + b"{}",
    _header(b'{"a":' * 40_000),
    _header(b"[]"),
    _header(b"{}"),
    _header(
      b'{"labels":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}', 4
    ),
    _header(
      b'{"labels":{"dtype":"F32","shape":[0,4611686018427387904,'
      b'4611686018427387904],"data_offsets":[0,0]}}'
    ),
  ],
  ids=range(10),
)
def test_damaged_files_are_refused(tmp_path, name, content):
  _write(tmp_path, {name: content})
  _refused(tmp_path)


@pytest.mark.parametrize(
  "names", ["[" * 100_000, "5", "{}", "[1, 2, 3, 4, 5, 6, 7]", '["a"]', ""]
)
def test_names_of_supports_are_seven_texts(tmp_path, names):
  arrays = safetensors.load(_made(False)[files.BANK])
  content = safetensors.save(arrays, metadata={"names": names})
  _write(tmp_path, {files.BANK: content})
  _refused(tmp_path)


def test_what_is_not_changed_is_read(tmp_path):
  for head in (False, True):
    _write(tmp_path, {files.BANK: lambda arrays: arrays}, head=head)
    assert classifier_lib.Classifier.load(tmp_path).num_classes == 3


@pytest.mark.slow
def test_no_row_has_probabilities_that_are_none():
  made = dataclasses.replace(random_classifier.make(), temperature=1e-300)
  with pytest.raises(
    errors.NonFiniteError, match=r"of 2 of 2 images are not .* image 0, image 1"
  ):
    made.predict(random_classifier.pixels((9, 12, 1), 2))


def _predictions(**changes):
  fields = {
    "probabilities": np.float32([[0.5, 0.5], [0.2, 0.8]]),
    "classes": np.int32([0, 1]),
    "entropy": np.float32([0.7, 0.5]),
    "novelty": np.float32([0, 1]),
    "support_indices": np.zeros((2, 1), np.int32),
    "support_weights": np.zeros((2, 1), np.float32),
  }
  return predictions.Predictions(**fields | changes)


@pytest.mark.parametrize(
  "changes",
  [
    {"probabilities": np.float32([[0.5, 0.5], [np.nan, 0.8]])},
    {"probabilities": np.float32([[0.5, 0.5], [0.2, 0.5]])},
    {"probabilities": np.float32([[0.5, 0.5], [-0.5, 1.5]])},
    {"entropy": np.float32([0.7, np.inf])},
    {"novelty": np.float32([0.7, np.nan])},
    {"in_domain": np.float32([0.7, np.nan])},
  ],
)
def test_every_number_of_a_row_is_checked(changes):
  predictions.check(_predictions(), "ab")
  with pytest.raises(errors.NonFiniteError, match=r"of 1 of 2 images .*: b"):
    predictions.check(_predictions(**changes), "ab")
