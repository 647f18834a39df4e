"""docs/serve.py: answers of the classifier, and refusals, over HTTP."""

import importlib.util
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from paws_jax import errors
from tests import random_classifier

ROOT = pathlib.Path(__file__).parents[2]
# Until the service answers.
_WAIT = (
  "--silent",
  "--retry-connrefused",
  "--retry-delay",
  "1",
  "--retry",
  "90",
)
pytest.importorskip("fastapi")
pytest.importorskip("multipart")
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp("served") / "classifier"
  random_classifier.make().save(path)
  return path


def _png(seed=0):
  pixels = np.random.default_rng(seed).integers(0, 256, (20, 30), np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "png")
  return pixels, file.getvalue()


def _app(directory, monkeypatch):
  monkeypatch.setenv("CLASSIFIER", str(directory))
  path = ROOT / "docs" / "serve.py"
  spec = importlib.util.spec_from_file_location("serve", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.create()


def test_an_image_gets_its_class_and_probabilities(directory, monkeypatch):
  pytest.importorskip("httpx")
  testclient = pytest.importorskip("fastapi.testclient")
  client = testclient.TestClient(_app(directory, monkeypatch))
  for seed in range(2):
    pixels, content = _png(seed)
    reply = client.post("/predict", files={"image": ("a.png", content)})
    assert reply.status_code == 200, reply.text
    expected = random_classifier.make().predict([pixels])
    found = reply.json()
    assert found["class"] == expected.predicted_classes[0]
    assert list(found["probabilities"]) == list(random_classifier.CLASSES)
    np.testing.assert_allclose(
      list(found["probabilities"].values()),
      expected.probabilities[0],
      atol=1e-6,
    )
  for content in (b"", b"no image", _png()[1][:200]):
    reply = client.post("/predict", files={"image": ("b.png", content)})
    assert reply.status_code == 422
    assert reply.json()["detail"].startswith("b.png: ")
    assert "/tmp" not in reply.text
  assert client.post("/predict").status_code == 422
  assert client.get("/predict").status_code == 405


def test_large_requests_are_refused_unread(directory, monkeypatch):
  pytest.importorskip("httpx")
  testclient = pytest.importorskip("fastapi.testclient")
  client = testclient.TestClient(_app(directory, monkeypatch))
  files = {"image": ("a.png", _png()[1])}
  for size, status in ((2**25, 200), (2**25 + 1, 413)):
    # The rest of the body is not waited for.
    length = {"content-length": str(size)}
    reply = client.post("/predict", files=files, headers=length)
    assert reply.status_code == status, reply.text
  # Without a length, in pieces.
  assert client.post("/predict", content=iter([b"x"])).status_code == 411
  assert client.get("/docs").status_code == 200


def test_without_a_classifier_nothing_is_served(tmp_path, monkeypatch):
  with pytest.raises(errors.ClassifierError, match="missing"):
    _app(tmp_path / "missing", monkeypatch)


def _free_port():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return str(free.getsockname()[1])


@pytest.mark.slow
def test_the_commands_of_the_guide(directory, tmp_path):
  pytest.importorskip("uvicorn")
  curl = shutil.which("curl")
  if curl is None:
    pytest.skip("curl is not installed")
  guide = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
  (commands,) = re.findall(r"```\n([^`]*uvicorn --app[^`]*)```", guide)
  _, serve, ask = commands.splitlines()
  variable, program, *arguments = shlex.split(serve)
  assert variable == "CLASSIFIER=runs/quickstart/classifier"
  port = _free_port()
  photo = tmp_path / "photo.jpg"
  photo.write_bytes(_png()[1])
  service = subprocess.Popen(
    [sys.executable, "-m", program, *arguments, f"--port={port}"],
    cwd=ROOT,
    env=os.environ | {"CLASSIFIER": str(directory), "JAX_PLATFORMS": "cpu"},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    words = shlex.split(ask.replace("photo.jpg", str(photo)))
    words = [curl, *words[1:], *_WAIT]
    reply = subprocess.run(
      [word.replace("8000", port) for word in words],
      capture_output=True,
      check=True,
      timeout=120,
    )
  finally:
    service.terminate()
    service.wait(timeout=30)
  assert json.loads(reply.stdout)["class"] in random_classifier.CLASSES
