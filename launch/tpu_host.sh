#!/usr/bin/env bash
# Commands that launch/tpu_vm.sh runs on every host of a Cloud TPU.
set -euo pipefail

usage() {
  cat >&2 <<'END'
usage: launch/tpu_host.sh COMMAND [ARGUMENTS OF paws_jax.main]

  remove          delete this checkout; refused while it runs
  install         make .venv with Python 3.12 and paws_jax[tpu]
  call ARGUMENTS  run paws_jax.main in the foreground
  start ARGUMENTS run it in the background; refused while one is running
  state           print whether it runs or how it ended
  stop            send it SIGTERM: it saves, and ends with status 0

State and log are in $PAWS_JAX_STATE (default ~/paws_jax_run).
END
  exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
state=${PAWS_JAX_STATE:-$HOME/paws_jax_run}
python=${PAWS_JAX_PYTHON:-$root/.venv/bin/python}

running() {
  [ -f "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null
}

refuse_second() {
  if running; then
    echo "error: process $(cat "$state/pid") is already running:" \
      "stop it first (launch/tpu_vm.sh stop)" >&2
    exit 1
  fi
}

remove() {
  refuse_second
  rm -rf "$root"
}

install() {
  refuse_second
  # The images of Cloud TPUs have Python 3.10; uv brings 3.12 without apt, which
  # unattended upgrades may hold locked.
  python3 -m pip install --quiet --user uv
  cd "$root"
  python3 -m uv venv --quiet --clear --python 3.12 .venv
  python3 -m uv pip install --quiet --python .venv/bin/python -e ".[tpu]"
  .venv/bin/python -c 'import paws_jax, sys; print("installed:", sys.version)'
}

# The parent of the run, which outlives this script and records its status.
supervise() {
  local status=0
  cd "$root"
  "$python" -u -m paws_jax.main "$@" >>"$state/log" 2>&1 </dev/null &
  echo "$!" >"$state/pid"
  wait "$!" || status=$?
  echo "$status" >"$state/status"
}

start() {
  local tries=0
  refuse_second
  mkdir -p "$state"
  rm -f "$state/pid" "$state/status"
  nohup bash "$root/launch/tpu_host.sh" supervise "$@" \
    >/dev/null 2>&1 </dev/null &
  until [ -s "$state/pid" ]; do
    sleep 0.1
    tries=$((tries + 1))
    if [ "$tries" -ge 100 ]; then
      echo "error: nothing was started within 10 seconds" >&2
      exit 1
    fi
  done
  echo "started: process $(cat "$state/pid"), log $state/log"
}

say_state() {
  if running; then
    echo "running: process $(cat "$state/pid")"
  elif [ -f "$state/status" ]; then
    echo "ended with status $(cat "$state/status")"
  elif [ -f "$state/pid" ]; then
    echo "ended with unknown status: it was killed"
  else
    echo "not started"
  fi
}

stop() {
  if running; then
    kill -TERM "$(cat "$state/pid")"
    echo "asked process $(cat "$state/pid") to save and stop"
  else
    say_state
  fi
}

[ $# -ge 1 ] || usage
command=$1
shift
case $command in
  remove) remove ;;
  install) install ;;
  call) cd "$root" && exec "$python" -m paws_jax.main "$@" ;;
  start) start "$@" ;;
  supervise) supervise "$@" ;;
  state) say_state ;;
  stop) stop ;;
  *) usage ;;
esac
