"""The JSON export of Label Studio: which class was chosen for each image."""

from __future__ import annotations

import dataclasses
import os
import urllib.parse
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from paws_jax import errors
from paws_jax import json_text
from paws_jax import text
from paws_jax.interchange import places
from paws_jax.interchange import tables
from paws_jax.runs import files

# Of images in the directory that Label Studio serves itself.
LOCAL_FILES = "/data/local-files/?d="


@dataclasses.dataclass(frozen=True)
class Answers:
  """Answers of people to the tasks of a project.

  Attributes:
    labels: class of each image, by its path relative to the document root; ""
      without an answer.
    skipped: paths of the images that were skipped, and not answered by others.
  """

  labels: Mapping[str, str]
  skipped: tuple[str, ...]

  @property
  def num_labelled(self) -> int:
    """Number of images with an answer."""
    return sum(map(bool, self.labels.values()))


def read_export(
  export: str | os.PathLike[str],
  *,
  document_root: str | os.PathLike[str],
  class_names: Iterable[str] | None = None,
  control: str | None = None,
  url_prefix: str = LOCAL_FILES,
) -> Answers:
  """Reads an export, and checks every task of it.

  Where several people have answered, the one marked as ground truth counts;
  without one, their answers must be the same.

  Args:
    export: the file of Label Studio's export as JSON (not JSON-MIN or CSV).
    document_root: as of `label_studio.write_tasks`.
    class_names: those that an answer may have; None: any.
    control: name of the tag Choices whose answers are classes; None: there is
      only one.
    url_prefix: as of `label_studio.write_tasks`, for tasks that were made
      elsewhere.

  Raises:
    MissingFileError: the export or images do not exist.
    InputError: it is no such export; a task has several answers or another
      kind of them; a class is unknown. Names the tasks.
  """
  path = files.resolve(export)
  tasks = _tasks(path)
  images, labels = places.Places(document_root), dict[str, str]()
  skipped, problems = [], []
  for number, task in enumerate(tasks, 1):
    where = f"task {_id(task, number)}"
    try:
      name = _path(task, images, os.fspath(document_root), url_prefix)
      label, was_skipped = _answer(task, control)
    except errors.InputError as error:
      problems.append(f"{where}: {error}")
      continue
    if label and labels.get(name) not in (None, "", label):
      problems.append(
        f"{where}: {name!r} is {label!r} here and {labels[name]!r} in another "
        "task"
      )
    labels[name] = label or labels.get(name, "")
    skipped += [name] if was_skipped else []
  if problems:
    raise errors.InputError(
      f"{path}: {len(problems)} of {len(tasks)} tasks cannot be used: "
      f"{text.first_few(problems, separator='; ')}."
    )
  _check_classes(path, labels, class_names)
  tables.check_files(
    str(path),
    {name: os.path.join(document_root, name) for name in labels},
    document_root,
    argument="document_root",
  )
  left_out = tuple(dict.fromkeys(n for n in skipped if not labels[n]))
  return Answers(labels, left_out)


def _tasks(path: Any) -> list[dict[str, Any]]:
  if not path.exists():
    raise errors.MissingFileError(f"{path}: there is no such export.")
  remedy = "export the project as JSON (not JSON-MIN, CSV or YOLO)"
  try:
    tasks = json_text.parse(files.read_bytes(path))
  except (OSError, ValueError) as error:
    raise errors.InputError(
      f"{path} is not JSON ({error}): {remedy}."
    ) from None
  if not isinstance(tasks, list) or not tasks:
    raise errors.InputError(f"{path} is no list of tasks: {remedy}.")
  for number, task in enumerate(tasks, 1):
    if not (
      isinstance(task, dict)
      and isinstance(task.get("data"), dict)
      and isinstance(task.get("annotations"), list)
    ):
      raise errors.InputError(
        f"{path}: task {number} has no data or no annotations: {remedy}."
      )
  return tasks


def _id(task: Mapping[str, Any], number: int) -> str:
  return text.printable(task.get("id", number), most=40)


def _path(
  task: Mapping[str, Any], images: places.Places, root: str, url_prefix: str
) -> str:
  """The path of a task's image, relative to the document root."""
  data = task["data"]
  given = data.get("path")
  if isinstance(given, str) and given:
    name = images.name(given)
  else:
    texts = [value for value in data.values() if isinstance(value, str)]
    urls = [value for value in texts if value.startswith(url_prefix)]
    # Or within the address of the server.
    urls += [value for value in texts if url_prefix in value]
    if not urls:
      raise errors.InputError(
        f"none of its data is a path or an address with {url_prefix!r} "
        "(images uploaded in the browser lose their names)"
      )
    quoted = urls[0][urls[0].index(url_prefix) + len(url_prefix) :]
    name = images.name(os.fsdecode(urllib.parse.unquote_to_bytes(quoted)))
  if os.path.isabs(name) or name.split(os.sep)[0] in (os.pardir, os.curdir):
    raise errors.InputError(f"the path {name!r} is not below {root!r}")
  return name


def _answer(task: Mapping[str, Any], control: str | None) -> tuple[str, bool]:
  """The class ("": none), and whether somebody has skipped the task."""
  annotations = [a for a in task["annotations"] if isinstance(a, dict)]
  skipped = [a for a in annotations if a.get("was_cancelled")]
  done = [a for a in annotations if not a.get("was_cancelled")]
  done = [a for a in done if a.get("ground_truth")] or done
  chosen = {_choice(annotation, control) for annotation in done} - {""}
  if len(chosen) > 1:
    raise errors.InputError(
      f"its answers differ ({text.first_few(map(repr, sorted(chosen)))}): mark "
      "one as ground truth, or delete the others"
    )
  return next(iter(chosen), ""), bool(skipped)


def _choice(annotation: Mapping[str, Any], control: str | None) -> str:
  """The class of one annotation; "" without one."""
  results = annotation.get("result")
  if not isinstance(results, list):
    raise errors.InputError("an annotation has no result")
  results = [r for r in results if isinstance(r, dict)]
  choices = [
    r
    for r in results
    if r.get("type") == "choices" and control in (None, r.get("from_name"))
  ]
  if results and not choices:
    kinds = sorted({str(r.get("type")) for r in results})
    names = sorted({str(r.get("from_name")) for r in results})
    raise errors.InputError(
      f"its answer is no choice{f' of {control!r}' if control else ''}, but "
      f"{text.first_few(kinds)} of {text.first_few(map(repr, names))}"
    )
  tags = sorted({str(r.get("from_name")) for r in choices})
  if len(tags) > 1:
    raise errors.InputError(
      f"it has choices of {text.first_few(map(repr, tags))}: say which are "
      "classes with control=NAME"
    )
  try:
    names = [name for r in choices for name in r["value"]["choices"]]
  except (KeyError, TypeError):
    raise errors.InputError("a choice has no value") from None
  if len(names) > 1 or not all(isinstance(name, str) for name in names):
    raise errors.InputError(
      f"it has several classes ({text.first_few(map(repr, names))}), and an "
      "image has one"
    )
  return names[0].strip() if names else ""


def _check_classes(
  path: Any, labels: Mapping[str, str], class_names: Iterable[str] | None
) -> None:
  if class_names is None:
    return
  known = set(class_names)
  unknown = [
    f"{label!r} ({name})"
    for name, label in labels.items()
    if label and label not in known
  ]
  if unknown:
    raise errors.InputError(
      f"{path}: {len(unknown)} answers are of classes that are not known: "
      f"{text.first_few(unknown)}. Classes are "
      f"{text.first_few(map(repr, sorted(known)))}."
    )
