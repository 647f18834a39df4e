#!/usr/bin/env bash
# Runs paws_jax.main with these arguments in a pod of launch/gke_jobset.yaml.
#
# A run that is stopped by a signal exits with status 0, which Kubernetes would
# take for the end of the job. Pod 0 therefore exits with 75 when the run is not
# finished, which restarts all pods.
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
stopping=''
# Process 1 of a container receives the signal and must pass it on.
trap 'stopping=1; kill -TERM "$child" 2>/dev/null || true' TERM
status=0
wait "$child" || status=$?
# The signal ends `wait`, not the child, whose status is still to come.
while [ -n "$stopping" ]; do
  stopping=''
  again=0
  wait "$child" || again=$?
  # 127: the child has already ended.
  [ "$again" -eq 127 ] || status=$again
done

if [ "$status" -ne 0 ] || [ "$task" != pretrain ] ||
  [ "${JOB_COMPLETION_INDEX:-0}" != 0 ]; then
  exit "$status"
fi
"$python" launch/finished.py "$workdir" || exit 75
