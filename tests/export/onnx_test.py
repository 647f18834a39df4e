"""ONNX: files that answer as their classifiers do, in onnxruntime."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from paws_jax import errors
from paws_jax import models
from paws_jax.export import onnx
from paws_jax.export import program as program_lib
from paws_jax.export import to_onnx
from paws_jax.export.to_onnx import jaxpr
from paws_jax.models import vit
from tests import random_classifier
from tests.export import torch_source_test

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

# (model.name, a head instead of a vote, fields of the model).
SMALL = [
  ("small_resnet", False, {"prediction_head": True, "output_dim": 8}),
  ("small_resnet3", True, {"width": 2}),
]
MEDIUM = [
  ("resnet_tiny", False, {}),
  ("wide_resnet10", False, {"width": 2}),
  ("wide_resnet16", True, {}),
  ("vit_tiny", False, {}),
]
LARGE = [
  ("resnet50", False, {"prediction_head": True}),
  ("resnet101", False, {}),
  ("resnet18_cifar", False, {}),
  ("wide_resnet28", False, {"width": 2}),
  ("wide_resnet40", True, {}),
  ("efficientnet_lite0", False, {}),
  ("vit_s16_dinov3", False, {}),
]
# More blocks of the same kind.
NOT_TRIED = {"resnet200", "efficientnet_lite1", "efficientnet_lite2"} | {
  name for name in vit.SHAPES if name not in ("vit_tiny", "vit_s16_dinov3")
}


def answers(path, images, names=("probabilities", "embeddings")):
  session = onnxruntime.InferenceSession(path / onnx.FILE)
  return session.run(list(names), {"images": images})


def check(classifier, directory, tolerance=1e-5):
  """Writes a classifier; the file has its answers, for 1 and for 3 images."""
  program = program_lib.create(classifier)
  entries = onnx.write(program, directory)
  assert 0 < entries["files"]["largest_difference"] < tolerance
  images = random_classifier.pixels(program.image_shape, 3)
  exact = program_lib.with_dtype(classifier, "float32")
  expected = jax.jit(exact)(program.weights, images)
  for count in (1, 3):
    probabilities, embeddings = answers(directory, images[:count])
    np.testing.assert_allclose(
      probabilities, expected["probabilities"][:count], atol=tolerance
    )
    wanted = np.asarray(expected["embeddings"][:count])
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(embeddings, wanted, atol=tolerance * scale)
  # An answer that ignores the images would be seen.
  assert np.ptp(probabilities, axis=0).max() > 1e-4
  return entries


def larger(classifier, side):
  """The classifier for grey images of this side."""
  settings = random_classifier.settings(
    shape=(side, side, 1), eval_resize=0, large_size=side
  )
  return dataclasses.replace(classifier, preprocessing=settings)


def make(name, head, fields):
  """A classifier of random weights whose head leaves no class certain."""
  made = torch_source_test.make(name, head, **fields)
  if not head:
    return made
  weaker = dataclasses.replace(made.head, kernel=made.head.kernel * 1e-3)
  return dataclasses.replace(made, head=weaker)


@pytest.mark.parametrize(
  ("name", "head", "fields"),
  [*SMALL, *(pytest.param(*each, marks=pytest.mark.slow) for each in MEDIUM)],
)
def test_a_file_answers_as_its_classifier(tmp_path, name, head, fields):
  check(make(name, head, fields), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head", "fields"), LARGE)
def test_a_large_network(tmp_path, name, head, fields):
  made = larger(make(name, head, fields), 32)
  check(made, tmp_path)


def test_every_encoder_is_tried():
  tried = {name for name, *_ in SMALL + MEDIUM + LARGE}
  assert tried | NOT_TRIED == set(models.ENCODERS)


@pytest.mark.parametrize(
  ("changes", "tolerance"),
  [
    # Cut on the host, in color.
    pytest.param(
      {
        "on_disk": True,
        "shape": (8, 8, 3),
        "eval_resize": 9,
        "mean": (0.1, 0.2, 0.3),
        "std": (0.2, 0.3, 0.4),
      },
      1e-5,
      id="on disk",
    ),
    # Squared first, with levels rounded: a half may become either neighbor.
    pytest.param(
      {"image_size": 10, "eval_resize": 0},
      1e-3,
      id="squared",
      marks=pytest.mark.slow,
    ),
  ],
)
def test_the_evaluation_view_is_inside(tmp_path, changes, tolerance):
  check(random_classifier.make(**changes), tmp_path, tolerance)


def test_the_file_describes_itself(tmp_path):
  import onnx as onnx_package

  program = program_lib.create(random_classifier.make(dtype="bfloat16"))
  entries = onnx.write(program, tmp_path)
  # A network in bfloat16 is exported in float32.
  assert entries["activations"] == {"all": "float32"}
  assert entries["files"]["opset"] == 18
  session = onnxruntime.InferenceSession(tmp_path / onnx.FILE)
  (images,) = session.get_inputs()
  assert images.name == entries["input"]["name"] == "images"
  assert images.shape == entries["input"]["shape"] == ["b", 9, 12, 1]
  assert images.type == "tensor(uint8)"
  told = {out.name: out.shape for out in session.get_outputs()}
  assert told == {"probabilities": ["b", 3], "embeddings": ["b", 6]}
  properties = session.get_modelmeta().custom_metadata_map
  assert json.loads(properties["class_names"]) == list(
    random_classifier.CLASSES
  )
  assert "covers 9 x 12" in json.loads(properties["input"])["before"]
  model = onnx_package.load(tmp_path / onnx.FILE)
  assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
  kinds = {tensor.data_type for tensor in model.graph.initializer}
  assert kinds <= {
    onnx_package.TensorProto.FLOAT,
    onnx_package.TensorProto.INT64,
  }


def test_a_file_with_other_answers_is_not_written(tmp_path, monkeypatch):
  finish = to_onnx.Graph.finish

  def wrong(graph, outputs):
    name = graph.constant(np.asarray(1.001, np.float32))
    value = graph.add("Mul", [outputs["embeddings"], name])
    shifted = graph.add("Add", [value, name])
    finish(graph, outputs | {"embeddings": shifted})

  monkeypatch.setattr(to_onnx.Graph, "finish", wrong)
  program = program_lib.create(random_classifier.make())
  with pytest.raises(
    errors.DisagreementError, match=r"embeddings of the file differ by .*e-0"
  ):
    onnx.write(program, tmp_path)
  assert not list(tmp_path.iterdir())


def test_without_onnxruntime_the_file_is_not_run(tmp_path, monkeypatch):
  monkeypatch.setattr(
    onnx.packages, "is_installed", lambda name: name != "onnxruntime"
  )
  program = program_lib.create(random_classifier.make())
  entries = onnx.write(program, tmp_path)
  assert entries["files"]["largest_difference"] is None
  assert (tmp_path / onnx.FILE).is_file()


def test_weights_beyond_one_file_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(onnx, "MAX_BYTES", 1000)
  program = program_lib.create(random_classifier.make())
  with pytest.raises(errors.InputError, match="do not fit into one file"):
    onnx.write(program, tmp_path)


def test_an_operation_without_a_counterpart_is_named(tmp_path, monkeypatch):
  monkeypatch.delitem(jaxpr.HANDLERS, "conv_general_dilated")
  program = program_lib.create(random_classifier.make())
  with pytest.raises(
    errors.InputError,
    match=r"an operation \(conv_general_dilated\).*Export stablehlo instead",
  ):
    onnx.write(program, tmp_path)
