"""A web service: an image in, its class and probabilities out.

CLASSIFIER=DIRECTORY uvicorn --app-dir=docs --factory serve:create
curl --form image=@photo.jpg http://127.0.0.1:8000/predict
"""

import os
import tempfile
import threading
from typing import Any

import fastapi
import numpy as np

import paws_jax
from paws_jax import errors

# Bytes of a request; a larger one is not read.
MOST_BYTES = 32 * 2**20


def create() -> fastapi.FastAPI:
  """Makes the service of the classifier in the directory CLASSIFIER."""
  classifier = paws_jax.Classifier.load(os.environ.get("CLASSIFIER", ""))
  # The first prediction compiles the network.
  classifier.predict(np.zeros((1, *classifier.preprocessing.shape), np.uint8))
  one_at_a_time = threading.Lock()
  app = fastapi.FastAPI(title="Image classifier")

  @app.middleware("http")
  async def limit(request: fastapi.Request, answer: Any) -> fastapi.Response:
    size = request.headers.get("content-length")
    # In chunks, whose sum is not known before.
    if "transfer-encoding" in request.headers:
      return fastapi.Response("Content-Length is missing", 411)
    if int(size or 0) > MOST_BYTES:
      return fastapi.Response(f"more than {MOST_BYTES:,} bytes", 413)
    return await answer(request)

  @app.post("/predict")
  def predict(image: fastapi.UploadFile) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile() as file, one_at_a_time:
      file.write(image.file.read())
      file.flush()
      try:
        predicted = classifier.predict([file.name])
      except errors.BadImageError as error:
        reason = f"{image.filename}: {error.reason}"
        raise fastapi.HTTPException(422, reason) from None
    probabilities = predicted.probabilities[0].tolist()
    return {
      "class": predicted.predicted_classes[0],
      "probabilities": dict(
        zip(predicted.class_names, probabilities, strict=True)
      ),
    }

  return app
