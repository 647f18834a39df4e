#!/usr/bin/env bash
# What a pod of launch/gke_jobset.yaml runs: paws_jax.main with these arguments.
#
# A run that was told to stop ends with status 0, and Kubernetes would take the
# job for done. Pod 0 therefore ends with 75 when the run is not finished, which
# starts all pods again.
set -euo pipefail

python=${PAWS_JAX_PYTHON:-python}
workdir='' task=pretrain
for argument in "$@"; do
  case $argument in
    --workdir=*) workdir=${argument#*=} ;;
    --task=*) task=${argument#*=} ;;
  esac
done

"$python" -u -m paws_jax.main "$@" &
child=$!
told=''
# Process 1 of a container gets the signal, and must hand it on.
trap 'told=1; kill -TERM "$child" 2>/dev/null || true' TERM
status=0
wait "$child" || status=$?
# The signal ends `wait`, not the child, whose status is still to come.
while [ -n "$told" ]; do
  told=''
  again=0
  wait "$child" || again=$?
  # 127: there was nothing to wait for any more.
  [ "$again" -eq 127 ] || status=$again
done

if [ "$status" -ne 0 ] || [ "$task" != pretrain ] ||
  [ "${JOB_COMPLETION_INDEX:-0}" != 0 ]; then
  exit "$status"
fi
"$python" launch/finished.py "$workdir" || exit 75
