"""Lookup of the machines of a slice on Cloud TPU and GKE."""

from __future__ import annotations

import os
import pathlib
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from collections.abc import Mapping
from typing import NamedTuple

from paws_jax import errors


class Workers(NamedTuple):
  """The machines of a slice.

  Attributes:
    hosts: names or addresses, without ports, in the order of their numbers; one
      or none for a machine that is alone.
    number: this machine's, as text; None where it is not given.
    num_slices: 1 where nothing names several.
  """

  hosts: list[str]
  number: str | None
  num_slices: int


def has_device() -> bool:
  """Whether this machine has a device file of a TPU."""
  accel = any(pathlib.Path("/dev").glob("accel*"))
  # Not /dev/vfio/vfio, which any machine may have.
  return accel or any(pathlib.Path("/dev/vfio").glob("[0-9]*"))


def ask_metadata(attribute: str) -> str | None:
  """Returns an attribute of this machine in Google's cloud, or None.

  Raises:
    ValueError: when the metadata server is there but does not answer.
  """
  host = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
  request = urllib.request.Request(
    f"http://{host}/computeMetadata/v1/instance/attributes/{attribute}",
    headers={"Metadata-Flavor": "Google"},
  )
  for attempt in range(3):
    try:
      with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode()
    except urllib.error.HTTPError as error:
      if error.code == 404:
        return None
      failure: Exception = error
    except OSError as error:
      if isinstance(getattr(error, "reason", None), socket.gaierror):
        # Not in Google's cloud.
        return None
      failure = error
    time.sleep(attempt)
  raise errors.InputError(
    "this machine has a TPU, but its metadata server does not say whether it "
    f"is one of several ({failure}): run it again, or give "
    "--coordinator_address, --num_processes and --process_id "
    "(localhost:8482, 1 and 0 for this machine alone)."
  )


def find(
  environ: Mapping[str, str], metadata: Callable[[str], str | None]
) -> Workers:
  """Reads the variables that GKE sets, or else asks the metadata server.

  Args:
    environ: environment variables.
    metadata: returns an attribute of this machine by name, None without.
  """
  slices = environ.get("MEGASCALE_NUM_SLICES", "")
  listed = environ.get("TPU_PROCESS_ADDRESSES") or environ.get(
    "TPU_WORKER_HOSTNAMES"
  )
  if listed:
    number = environ.get("TPU_WORKER_ID")
    hosts = [_without_port(host.strip()) for host in listed.split(",")]
    return Workers(hosts, number, _count(slices))
  if not slices:
    found = re.search(
      r"^\s*MEGASCALE_NUM_SLICES:\s*'?(\d+)",
      metadata("tpu-env") or "",
      re.MULTILINE,
    )
    slices = found[1] if found else ""
  # "host,host", or, older, "name:number:address,...".
  endpoints = (metadata("worker-network-endpoints") or "").split(",")
  hosts = [endpoint.strip().split(":")[-1] for endpoint in endpoints]
  number = metadata("agent-worker-number") if len(hosts) > 1 else None
  return Workers(hosts, number and number.strip(), _count(slices))


def _count(slices: str) -> int:
  return int(slices) if slices.isdecimal() else 1


def _without_port(host: str) -> str:
  """Removes the port of a worker's address: it is another service's."""
  name, _, port = host.partition(":")
  # Several colons: an address of IPv6.
  return host if ":" in port else name
