"""The script that runs all tests says what it ran, and with which Python."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Makes an environment of which only the first line of its Python is of use.
_MAKE = """\
echo "make $*"
case "$*" in *"$BROKEN"*) exit 2 ;; esac
venv=.venv
for word in "$@"; do
  case $word in
    VENV=*) venv=${word#VENV=} ;;
    test-lower-bounds) venv=.venv-oldest ;;
  esac
done
mkdir -p "$venv/bin"
printf '#!/bin/sh\\n[ "$1" = - ] && echo versions of %s || exit %s\\n' \\
  "$venv" "$OLD" > "$venv/bin/python"
chmod +x "$venv/bin/python"
"""


def _script(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f"#!/bin/sh\n{text}")
  path.chmod(0o755)


@pytest.fixture
def run(tmp_path):
  """Runs the script in a checkout of its own, on a machine of its own."""
  (tmp_path / ".ci").mkdir()
  shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
  tools = tmp_path / "bin"
  tools.mkdir()
  for tool in ("bash", "cat", "chmod", "dirname", "mkdir", "rm"):
    (tools / tool).symlink_to(shutil.which(tool))
  _script(tools / "make", _MAKE)

  def run(*pythons, python3="3.11", broken="nothing", latest="3000"):
    for python in pythons:
      _script(tmp_path / python, "exit 0")
    done = subprocess.run(
      [tools / "bash", tmp_path / ".ci" / "run"],
      capture_output=True,
      text=True,
      env={
        "PATH": str(tools),
        "HOME": str(tmp_path / "home"),
        "BROKEN": broken,
        "LATEST_START": latest,
        "OLD": str(int(python3 == "3.11")),
      },
    )
    lines = done.stdout.splitlines()
    made = [line.replace(f"{tmp_path}/", "") for line in lines]
    made = [line for line in made if line.startswith("make ")]
    _, _, passed = done.stdout.partition("\nPassed:\n")
    return done.returncode, made, passed.splitlines()

  return run


@pytest.mark.parametrize(
  ("python", "called"),
  [
    ("bin/python3.13", "python3.13"),
    ("bin/python3.12", "python3.12"),
    (
      "home/.pyenv/versions/3.13.7/bin/python",
      "home/.pyenv/versions/3.13.7/bin/python",
    ),
  ],
)
def test_quick_tests_run_with_a_newer_python(run, tmp_path, python, called):
  # pyenv's command of a version that is not selected.
  _script(tmp_path / "bin/python3.13", "exit 127")
  status, made, passed = run("bin/python3.11", python)
  assert made == [
    "make test",
    f"make test-fast PYTHON={called} VENV=.venv-other",
    "make test-lower-bounds PYTHON=python3.11",
  ]
  assert passed == [
    "  all tests: versions of .venv",
    "  quick tests: versions of .venv-other",
    "  tests of the lower bounds: versions of .venv-oldest",
  ]
  assert status == 0


def test_quick_tests_run_with_an_older_python(run):
  _, made, _ = run("bin/python3.13", "bin/python3.11", python3="3.13")
  assert "make test-fast PYTHON=python3.11 VENV=.venv-other" in made


def test_what_is_not_there_is_named(run):
  status, made, passed = run()
  assert made == ["make test"]
  assert passed == [
    "  all tests: versions of .venv",
    "  not run, since it is not there: quick tests with Python 3.13 3.12",
    "  not run, since it is not there: lower bounds with Python 3.11",
  ]
  assert status == 0


def test_what_there_is_no_time_for_is_named(run):
  status, made, passed = run("bin/python3.13", "bin/python3.11", latest="-1")
  assert made == ["make test"]
  assert passed == [
    "  all tests: versions of .venv",
    "  not run, for lack of time: quick tests with another Python",
    "  not run, for lack of time: lower bounds",
  ]
  assert status == 0


@pytest.mark.parametrize(
  "broken", ["test", "test-fast PYTHON", "test-lower-bounds"]
)
def test_any_failure_is_one_of_the_script(run, broken):
  status, made, passed = run("bin/python3.13", "bin/python3.11", broken=broken)
  assert status == 2
  assert broken in made[-1]
  assert not passed
