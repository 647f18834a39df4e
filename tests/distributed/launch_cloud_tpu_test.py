"""Answers of the metadata server, and their absence."""

import contextlib
import http.server
import threading

import pytest

from paws_jax.distributed import launch_cloud_tpu


@contextlib.contextmanager
def _server(monkeypatch, answers):
  """Serves attributes; a number is an error. Yields the list of requests."""
  asked = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      asked.append((self.path, self.headers["Metadata-Flavor"]))
      answer = answers.get(self.path.rpartition("/")[2], 404)
      self.send_response(answer if isinstance(answer, int) else 200)
      self.end_headers()
      if isinstance(answer, str):
        self.wfile.write(answer.encode())

    def log_message(self, *_):
      pass

  server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  monkeypatch.setattr(launch_cloud_tpu.time, "sleep", lambda _: None)
  try:
    yield asked
  finally:
    server.shutdown()
    thread.join()
    server.server_close()


def test_attribute(monkeypatch):
  with _server(monkeypatch, {"agent-worker-number": "3"}) as asked:
    assert launch_cloud_tpu.ask_metadata("agent-worker-number") == "3"
    assert launch_cloud_tpu.ask_metadata("tpu-env") is None
  assert asked[0] == (
    "/computeMetadata/v1/instance/attributes/agent-worker-number",
    "Google",
  )


def test_server_error_is_reported(monkeypatch):
  with (
    _server(monkeypatch, {"tpu-env": 503}) as asked,
    pytest.raises(ValueError, match=r"one of several.*503.*--num_processes"),
  ):
    launch_cloud_tpu.ask_metadata("tpu-env")
  assert len(asked) == 3


def test_no_server_outside_the_cloud(monkeypatch):
  monkeypatch.setenv("GCE_METADATA_IP", "nowhere.invalid")
  monkeypatch.setenv("no_proxy", "*")
  assert launch_cloud_tpu.ask_metadata("tpu-env") is None
