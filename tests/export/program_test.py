"""Programs: the answers of their classifiers, for any number of images."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import export

from paws_jax import errors
from paws_jax.export import program as program_lib
from paws_jax.export import stablehlo
from tests import random_classifier

pytestmark = pytest.mark.unoptimized


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"head": True},
    # Squared first, then not resized.
    {"image_size": 10, "eval_resize": 0},
    # Cut on the host.
    {
      "on_disk": True,
      "shape": (8, 8, 3),
      "eval_resize": 9,
      "mean": (0.1, 0.2, 0.3),
      "std": (0.2, 0.3, 0.4),
    },
  ],
  ids=["vote", "head", "squared", "on disk"],
)
def test_a_program_answers_as_its_classifier(changes):
  classifier = random_classifier.make(**changes)
  program = program_lib.create(classifier)
  shape = program.image_shape
  # An image on disk is resized and cut before; so it is here, by `pixels`.
  prepare = classifier.preprocessing.pixels
  images = random_classifier.pixels(
    (9, 9, 3) if classifier.preprocessing.on_disk else shape, 4
  )
  ready = np.stack([prepare(image, "") for image in images])
  assert ready.shape[1:] == shape
  got = jax.jit(program.apply)(program.weights, ready)
  expected = classifier.predict(images).probabilities
  np.testing.assert_allclose(got["probabilities"], expected, atol=2e-6)
  np.testing.assert_allclose(
    got["embeddings"], classifier.embed(images), rtol=1e-5, atol=1e-5
  )
  # Not all alike: a program that ignores its images would be seen.
  assert np.ptp(expected, axis=0).max() > 1e-3


def lowered(dtype):
  program = program_lib.create(random_classifier.make(dtype=dtype))
  exported = stablehlo.exported_program(program)
  return program.interface["activations"], exported


def test_activations_are_settled_where_the_program_runs():
  told, exported = lowered("float32")
  assert told == {"cpu": "float32", "cuda": "float32", "tpu": "float32"}
  assert "bf16" not in exported.mlir_module()
  told, exported = lowered("auto")
  assert told == {"cpu": "float32", "cuda": "bfloat16", "tpu": "bfloat16"}
  assert "xbf16>" in exported.mlir_module()
  # On a CPU it is the program in float32.
  program = program_lib.create(random_classifier.make(dtype="float32"))
  images = random_classifier.pixels(program.image_shape, 3)
  got = exported.call(program.weights, images)
  expected = jax.jit(program.apply)(program.weights, images)
  np.testing.assert_allclose(
    got["embeddings"], expected["embeddings"], rtol=1e-6, atol=1e-6
  )


def test_an_exported_program_is_for_all_platforms_and_batch_sizes():
  _, exported = lowered("auto")
  assert exported.platforms == ("cpu", "cuda", "tpu")
  restored = export.deserialize(exported.serialize())
  assert [str(a.shape[0]) for a in restored.out_avals] == ["b", "b"]
  assert restored.nr_devices == 1


def test_the_description_says_what_goes_in_and_comes_out():
  program = program_lib.create(random_classifier.make())
  told = program.description | program.interface
  assert told["class_names"] == list(random_classifier.CLASSES)
  assert told["input"]["shape"] == ["b", 9, 12, 1]
  assert told["outputs"]["embeddings"]["shape"] == ["b", 6]
  assert told["outputs"]["probabilities"]["shape"] == ["b", 3]
  assert told["temperature"] == 0.5
  assert "covers 9 x 12" in told["input"]["before"]
  program = program_lib.create(random_classifier.make(head=True))
  told = program.description | program.interface
  assert told["outputs"]["embeddings"]["shape"] == ["b", 64]
  assert told["temperature"] is None


def test_a_bank_of_one_class_is_refused_but_not_beside_a_head():
  classifier = random_classifier.make()
  one = dataclasses.replace(
    classifier.support_bank,
    labels=np.zeros(random_classifier.SUPPORTS, np.int32),
  )
  with pytest.raises(ValueError, match=r"7 supports are of 1 class.*Add"):
    program_lib.create(dataclasses.replace(classifier, support_bank=one))
  program_lib.create(
    dataclasses.replace(random_classifier.make(head=True), support_bank=one)
  )


def test_weights_that_are_not_finite_are_refused():
  classifier = random_classifier.make()
  embeddings = np.array(classifier.support_bank.embeddings)
  embeddings[2, 3] = np.nan
  bad = dataclasses.replace(classifier.support_bank, embeddings=embeddings)
  with pytest.raises(
    errors.NonFiniteError, match=r"first bank/embeddings.*diverged"
  ):
    program_lib.create(dataclasses.replace(classifier, support_bank=bad))
