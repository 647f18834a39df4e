#!/usr/bin/env bash
# Trains on Cloud TPU VMs: one host, or a pod of many. docs/pods.md explains.
set -euo pipefail

usage() {
  [ $# -eq 0 ] || echo "error: $*" >&2
  cat >&2 <<'END'
usage: launch/tpu_vm.sh COMMAND --name=NAME --zone=ZONE [OPTIONS] \
         [-- ARGUMENTS OF paws_jax.main]

commands, in the order they are used
  create    ask for the TPU                      needs --type
  status    state of the TPU, and of the run on every host
  install   copy this checkout to every host and install it there
  devices   processes, devices, mesh and sizes   needs -- --config=...
  run       train, in the background             needs -- --config=...
                                                       --workdir=...
  log       follow the log of host 0
  stop      SIGTERM to every host: the run saves and ends; `run` continues
  collect   logs and results, to --output        needs -- --workdir=...
  delete    give the TPU back

options (or environment)
  --name=NAME         (TPU_NAME) name of the TPU
  --zone=ZONE         (CLOUDSDK_COMPUTE_ZONE)
  --project=PROJECT   (CLOUDSDK_CORE_PROJECT) default: gcloud's own
  --type=TYPE         v5litepod-N, v6e-N: N chips; v4-N, v5p-N, v3-N: N/2 chips
  --runtime=VERSION   default: the one for the type
  --queued            create, status, delete: through a queued resource
  --spot              create: cheaper, and may be taken away
  --service-account=EMAIL   create: the identity that reads and writes gs://
  --data-disk=DISK    create: projects/P/zones/Z/disks/D, for all hosts to read
  --output=DIR        collect: default runs/NAME
  --dry-run           print the commands and execute none
END
  exit 2
}

help() {
  (usage) 2>&1 || true
  exit 0
}

fail() {
  echo "error: $*" >&2
  exit 2
}

# Quotes a word for a shell.
quote() {
  case $1 in
    '' | *[!A-Za-z0-9_./:=@,%+~-]*)
      printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
      ;;
    *) printf '%s' "$1" ;;
  esac
}

quote_all() {
  local word separator=''
  for word in "$@"; do
    printf '%s' "$separator"
    quote "$word"
    separator=' '
  done
}

execute() {
  if [ -n "$dry_run" ]; then
    quote_all "$@"
    echo
  else
    "$@"
  fi
}

# Sets version, chips and hosts for $type.
read_type() {
  local size=${type##*-}
  case $size in
    '' | *[!0-9]* | 0*) fail "--type=$type: no size after the dash" ;;
  esac
  case $type in
    v5litepod-*) version=v2-alpha-tpuv5-lite chips=$size ;;
    v6e-*) version=v2-alpha-tpuv6e chips=$size ;;
    v5p-*) version=v2-alpha-tpuv5 chips=$((size / 2)) ;;
    v4-* | v3-*) version=tpu-ubuntu2204-base chips=$((size / 2)) ;;
    *) fail "--type=$type: known are v3-N, v4-N, v5litepod-N, v5p-N, v6e-N" ;;
  esac
  hosts=$(((chips + 3) / 4))
  case $type in
    # The eight chips of these smallest pods are on one host.
    v5litepod-8 | v6e-8) hosts=1 ;;
  esac
  [ "$chips" -ge 1 ] || fail "--type=$type: less than one chip"
}

# Sets place to --name, --zone and --project for gcloud.
read_place() {
  [ -n "$name" ] || usage "--name is missing"
  [ -n "$zone" ] || usage "--zone is missing"
  case $name in
    [!a-z]* | *[!a-z0-9-]*)
      fail "--name=$name: lower-case letters, digits and dashes," \
        "a letter first"
      ;;
  esac
  place=("--zone=$zone")
  if [ -n "$project" ]; then
    place=("${place[@]}" "--project=$project")
  fi
}

# on WORKERS COMMAND...: runs launch/tpu_host.sh on these hosts.
on() {
  local workers=$1
  shift
  execute gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" \
    "--worker=$workers" \
    "--command=$(quote_all bash paws_jax/launch/tpu_host.sh "$@")"
}

create() {
  local options=()
  [ -n "$type" ] || usage "--type is missing"
  read_type
  version=${runtime:-$version}
  echo "$type: $chips chip(s) on $hosts host(s), runtime $version" >&2
  options=("${place[@]}" "--accelerator-type=$type")
  if [ -n "$spot" ]; then
    options=("${options[@]}" --spot)
  fi
  if [ -n "$service_account" ]; then
    options=("${options[@]}" "--service-account=$service_account")
  fi
  if [ -n "$data_disk" ]; then
    # Several hosts can share a disk only when none writes to it.
    options=("${options[@]}" "--data-disk=source=$data_disk,mode=read-only")
  fi
  if [ -n "$queued" ]; then
    execute gcloud compute tpus queued-resources create "$name" \
      "--node-id=$name" "--runtime-version=$version" "${options[@]}"
    echo "wait until \`status --queued\` says ACTIVE, then \`install\`" >&2
  else
    execute gcloud compute tpus tpu-vm create "$name" \
      "--version=$version" "${options[@]}"
  fi
}

status() {
  if [ -n "$queued" ]; then
    execute gcloud compute tpus queued-resources describe "$name" \
      "${place[@]}" "--format=value(state.state)"
  fi
  execute gcloud compute tpus tpu-vm describe "$name" "${place[@]}" \
    "--format=value(state,health)"
  on all state
}

install() {
  local archive root unpack
  archive=$(mktemp -u).tar.gz
  # A checkout that is in use is not touched.
  unpack='if [ -e paws_jax ]; then bash paws_jax/launch/tpu_host.sh remove; fi'
  unpack="$unpack && mkdir paws_jax && tar -xzf paws_jax.tar.gz -C paws_jax"
  root=$(cd "$(dirname "$0")/.." && pwd)
  execute tar -czf "$archive" -C "$root" --exclude=./.git --exclude=./.venv \
    --exclude=./runs --exclude=__pycache__ .
  execute gcloud compute tpus tpu-vm scp "$archive" "$name:paws_jax.tar.gz" \
    "${place[@]}" --worker=all
  execute rm -f "$archive"
  execute gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all \
    "--command=$unpack"
  on all install
}

collect() {
  local target=${output:-runs/$name}
  read_workdir "$@"
  execute mkdir -p "$target/logs"
  execute gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all \
    "--command=cat paws_jax_run/log" "--output-directory=$target/logs"
  case $workdir in
    gs://*)
      # Checkpoints are the bulk of a workdir and stay where they are.
      execute gcloud storage rsync --recursive "--exclude=checkpoints/.*" \
        "$workdir" "$target"
      ;;
    *)
      execute gcloud compute tpus tpu-vm scp --recurse "$name:$workdir" \
        "$target" "${place[@]}" --worker=0
      ;;
  esac
}

delete() {
  if [ -n "$queued" ]; then
    # --force: deletes also the TPU.
    execute gcloud compute tpus queued-resources delete "$name" \
      "${place[@]}" --force --quiet
  else
    execute gcloud compute tpus tpu-vm delete "$name" "${place[@]}" --quiet
  fi
}

# Sets workdir to the value of --workdir= among the arguments of main.
read_workdir() {
  local argument
  workdir=
  for argument in "$@"; do
    case $argument in
      --workdir=*) workdir=${argument#--workdir=} ;;
    esac
  done
  case $workdir in
    gs://?*/?* | /?*) ;;
    '') usage "--workdir=gs://BUCKET/RUN is missing after --" ;;
    *) fail "--workdir=$workdir: it must be gs://BUCKET/RUN or a path from /" ;;
  esac
}

read_config() {
  case " $* " in
    *' --config='*) ;;
    *) usage "--config=RECIPE is missing after --" ;;
  esac
}

run() {
  read_config "$@"
  read_workdir "$@"
  case $workdir in
    gs://*) ;;
    *) echo "note: every host must see the same $workdir" >&2 ;;
  esac
  on all start "$@"
}

[ $# -ge 1 ] || usage
[ "$1" != --help ] || help
command=$1
if [ "$command" = topology ]; then
  echo "notice: topology is now devices; both work" >&2
  command=devices
fi
shift
name=${TPU_NAME:-}
zone=${CLOUDSDK_COMPUTE_ZONE:-}
project=${CLOUDSDK_CORE_PROJECT:-}
type='' runtime='' queued='' spot='' service_account='' data_disk='' output=''
dry_run=''
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --runtime=*) runtime=${1#*=} ;;
    --service-account=*) service_account=${1#*=} ;;
    --data-disk=*) data_disk=${1#*=} ;;
    --output=*) output=${1#*=} ;;
    --queued) queued=1 ;;
    --spot) spot=1 ;;
    --dry-run) dry_run=1 ;;
    --)
      shift
      break
      ;;
    *) usage "unknown option $1 (arguments of paws_jax.main follow --)" ;;
  esac
  shift
done

case $command in
  create | status | install | devices | run | log | stop | collect | delete) ;;
  *) usage "unknown command $command" ;;
esac
read_place
case $command in
  devices)
    read_config "$@"
    on all call --task=devices "$@"
    ;;
  log)
    execute gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=0 \
      "--command=tail -n 40 -F paws_jax_run/log"
    ;;
  stop) on all stop ;;
  *) "$command" "$@" ;;
esac
