"""Task `embed`: any images in, one file of embeddings out."""

import hashlib
import json
import os

import numpy as np
import pytest
from PIL import Image

from paws_jax import errors
from paws_jax.predict import embeddings
from paws_jax.predict import write_rows
from paws_jax.tasks import embed
from tests import random_classifier

COUNT = 4


@pytest.fixture(scope="module")
def classifier():
  return random_classifier.make()


@pytest.fixture(scope="module")
def saved(classifier, tmp_path_factory):
  path = tmp_path_factory.mktemp("embed") / "saved"
  classifier.save(path)
  return path


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch, classifier):
  """Each command would load and compile a classifier of its own."""
  made = classifier

  def find(*unused, classifier, **also_unused):
    assert os.path.exists(classifier)
    return embed.source_lib._source(made)

  monkeypatch.setattr(embed.source_lib, "find", find)


@pytest.fixture
def images(tmp_path):
  """Images one folder down, a table of them, and a file that is none."""
  folder = tmp_path / "images"
  (folder / "deep").mkdir(parents=True)
  pixels = random_classifier.pixels((9, 12, 1), COUNT)
  for i in range(COUNT):
    Image.fromarray(pixels[i, ..., 0]).save(folder / "deep" / f"{i}.png")
  (folder / "bad.png").write_text("no image")
  lines = ["path,label", "images/deep/0.png,ant", "images/deep/1.png,"]
  (tmp_path / "list.csv").write_text("\n".join(lines))
  return folder


def prepare(classifier, images, output, **changes):
  flags = {"layer": "projection", "head": "soft_nn"}
  return embed.prepare(
    None,
    "",
    classifier=str(classifier),
    images=None if images is None else str(images),
    output=None if output is None else str(output),
    **(flags | changes),
  )


def execute(*args, **changes):
  assert embed.run(prepare(*args, **changes)) == 0


@pytest.fixture(params=embeddings.SUFFIXES)
def output(tmp_path, request):
  if request.param == ".parquet":
    pytest.importorskip("pyarrow")
  return tmp_path / f"e{request.param}"


def pixels():
  return random_classifier.pixels((9, 12, 1), COUNT)


@pytest.mark.parametrize("layer", ["projection", "features"])
def test_embeddings_are_those_of_the_classifier(
  classifier, saved, images, output, layer, capsys
):
  execute(saved, images, output, layer=layer)
  out = capsys.readouterr().out
  assert out.endswith(
    f"embeddings   {output}\n4 of 5 images are embedded; 1 cannot be read, see "
    f"{output.parent / 'e.unreadable.csv'}\n"
  )
  got = embeddings.read(output)
  assert got.names == tuple(f"deep/{i}.png" for i in range(COUNT))
  want = classifier.embed(pixels(), layer=layer)
  np.testing.assert_allclose(got.embeddings, want, rtol=1e-5, atol=1e-6)
  assert got.labels == ("",) * COUNT
  weights = hashlib.sha256((saved / "encoder.safetensors").read_bytes())
  assert got.metadata["weights"] == weights.hexdigest()
  assert got.metadata["classifier"] == classifier.digest
  assert got.metadata["layer"] == layer
  assert got.metadata["dimension"] == want.shape[1]
  assert got.metadata["dimension"] == (6 if layer == "projection" else 64)


def test_labels_of_a_table_are_kept(saved, images, output):
  execute(saved, images.parent / "list.csv", output)
  got = embeddings.read(output)
  assert got.names == ("images/deep/0.png", "images/deep/1.png")
  assert got.labels == ("ant", "")


def test_a_label_that_was_removed_is_gone(saved, images, output):
  table = images.parent / "list.csv"
  content = table.read_text()
  table.write_text(f"{content}bee")
  execute(saved, table, output)
  assert embeddings.read(output).labels == ("ant", "bee")
  # Of an image that is not listed any more it stays.
  table.write_text("path,label\nimages/deep/0.png,")
  execute(saved, table, output)
  assert embeddings.read(output).labels == ("", "bee")
  table.write_text("path\nimages/deep/0.png\nimages/deep/1.png")
  execute(saved, table, output)
  assert embeddings.read(output).labels == ("", "")


def test_two_labels_of_one_image_are_none(saved, images, output, capsys):
  table = images.parent / "list.csv"
  table.write_text(f"{table.read_text()}b\nimages/deep/1.png,c\n")
  execute(saved, table, output)
  assert embeddings.read(output).labels == ("ant", "")
  out = capsys.readouterr().out
  assert "several labels, of which none is used: 'images/deep/1.png'\n" in out


def test_the_files_are_read_without_this_package(saved, images, tmp_path):
  pytest.importorskip("pyarrow")
  from pyarrow import parquet

  for suffix in embeddings.SUFFIXES:
    execute(saved, images.parent / "list.csv", tmp_path / f"e{suffix}")
  table = parquet.read_table(tmp_path / "e.parquet")
  assert table.column_names == ["path", "embedding", "label"]
  assert str(table.schema.field("embedding").type) == (
    "fixed_size_list<element: float>[6]"
  )
  assert table["label"].to_pylist() == ["ant", None]
  about = json.loads(table.schema.metadata[b"paws_jax"])
  with np.load(tmp_path / "e.npz") as arrays:
    assert sorted(arrays) == ["embeddings", "labels", "metadata", "names"]
    assert arrays["embeddings"].dtype == np.float32
    assert arrays["names"].tolist() == table["path"].to_pylist()
    np.testing.assert_array_equal(
      arrays["embeddings"], np.stack(table["embedding"].to_numpy())
    )
    assert json.loads(arrays["metadata"].item()) == about


def test_a_stopped_command_is_continued(
  saved, images, output, monkeypatch, capsys
):
  monkeypatch.setattr(
    embed.classifier_lib.Classifier, "_batch_rows", lambda self, count: 1
  )
  with monkeypatch.context() as patch:

    def stop(self, step, metrics):
      if step >= 3:
        raise KeyboardInterrupt

    patch.setattr(write_rows.ImageProgress, "show", stop)
    with pytest.raises(KeyboardInterrupt):
      execute(saved, images, output)
  assert not output.exists()
  part = output.with_name(f"{output.name}.part")
  whole = part.read_bytes()
  # As a crash leaves it: in the middle of a row, without its last characters.
  part.write_bytes(whole[:-9])
  capsys.readouterr()
  execute(saved, images, output)
  out = capsys.readouterr().out
  assert "1 of 5 images have a row\n" in out
  assert ".old" not in out
  assert embeddings.read(output).names == tuple(
    f"deep/{i}.png" for i in range(COUNT)
  )
  assert not part.exists()


def test_images_that_come_later_are_added(saved, images, output, capsys):
  execute(saved, images, output)
  first = embeddings.read(output)
  (images / "deep" / "0.png").rename(images / "zebra.png")
  execute(saved, images, output)
  out = capsys.readouterr().out
  assert "3 of 5 images have a row\n" in out
  assert "keeps rows of images that are not there any more: 1; to" in out
  second = embeddings.read(output)
  assert second.names == (*first.names, "zebra.png")
  np.testing.assert_array_equal(second.embeddings[:4], first.embeddings)
  assert not list(output.parent.glob("*.old*"))


def test_what_a_user_has_changed_is_kept(saved, images, output, capsys):
  execute(saved, images, output)
  mine = output.read_bytes() + b"mine"
  output.write_bytes(mine)
  execute(saved, images, output)
  assert f"e.old{output.suffix}" in capsys.readouterr().out
  assert (output.parent / f"e.old{output.suffix}").read_bytes() == mine
  assert len(embeddings.read(output)) == COUNT


def test_another_layer_does_not_replace_the_rows(saved, images, output, capsys):
  execute(saved, images, output)
  before = output.read_bytes()
  execute(saved, images, output, layer="features")
  old = output.parent / f"e.old{output.suffix}"
  out = capsys.readouterr().out
  assert (
    f"its rows are of another layer; {output.name} is now {old.name}" in out
  )
  assert old.read_bytes() == before
  assert embeddings.read(output).embeddings.shape == (COUNT, 64)


def test_the_reason_is_what_has_changed(saved, images, output, capsys):
  execute(saved, images, output)
  table = images.parent / "list.csv"
  execute(saved, table, output, layer="features")
  out = capsys.readouterr().out
  assert "its rows are of another layer and other images; " in out


def test_images_are_embedded_again(saved, images, output, capsys):
  execute(saved, images, output)
  part = output.with_name(f"{output.name}.part")
  part.write_text("mine")
  execute(saved, images, output)
  out = capsys.readouterr().out
  assert "other images are embedded again" in out
  assert "predicted" not in out


def test_rows_of_another_length_are_no_file(saved, images, output):
  execute(saved, images.parent / "list.csv", output)
  part = output.with_name(f"{output.name}.part")
  vector = embeddings.csv_rows.encode_vector(np.zeros(5))
  part.write_text(f"path,embedding,label\nimages/deep/0.png,{vector},\n")
  with pytest.raises(errors.WorkdirError, match="has 6 numbers, and that of"):
    execute(saved, images.parent / "list.csv", output)


@pytest.mark.parametrize(
  ("changes", "problem"),
  [
    ({"images": None}, "--images is missing"),
    ({"images": "nowhere"}, "--images=nowhere: there is no such"),
    ({"output": "e.csv"}, r"--output=e\.csv ends in neither \.npz nor \.parq"),
    ({"output": "mine.npz"}, r"was not written by this task \(no mine\.npz\."),
    ({"output": "/proc/e.npz"}, r"another file with --output=FILE\.npz"),
    ({"output": "gs://bucket/e.npz"}, "is in a bucket"),
    ({"images": "x.npz", "output": "x.npz"}, "the embeddings would be written"),
  ],
)
def test_what_a_user_can_get_wrong(
  saved, images, tmp_path, monkeypatch, changes, problem
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "mine.npz").touch()
  (tmp_path / "x.npz").touch()
  (tmp_path / "x.npz.json").write_text("{}")
  given = {"images": "images", "output": "e.npz"} | changes
  with pytest.raises((ValueError, FileNotFoundError), match=problem):
    prepare(saved, **given)
  # And by default beside the run's other files.
  assert prepare(saved, "images", None).output == tmp_path / "embeddings.npz"


def test_an_unknown_layer_is_named(classifier):
  with pytest.raises(errors.InputError, match="no layer 'trunk': choose proj"):
    classifier.embed(pixels(), layer="trunk")
