#!/usr/bin/env bash
# Trains on a TPU slice of a GKE cluster. docs/pods.md explains.
set -euo pipefail

usage() {
  [ $# -eq 0 ] || echo "error: $*" >&2
  cat >&2 <<'END'
usage: launch/gke.sh COMMAND --name=NAME [OPTIONS] \
         [-- ARGUMENTS OF paws_jax.main]

commands
  pool      make the node pool      needs --cluster --location --machine
  devices   processes, devices, mesh and sizes, as a job of its own
  run       train                   both need --image --machine --
                                    --config=... --workdir=gs://...
  log       follow the log of process 0
  delete    delete the job; a run that has not ended saves first

options
  --machine=KIND:SHAPE     as for --task=plan: v5e:8x8, v6e:4x4, v4:2x2x4, ...
  --image=IMAGE            built from launch/Dockerfile
  --namespace=NAMESPACE    default: default
  --service-account=NAME   Kubernetes account that may write the bucket
  --max-restarts=N         default 20
  --spot                   nodes that are cheaper and may be taken away
  --cluster, --location, --node-location, --project   pool: as gcloud has them
  --dry-run                print what would be done and do nothing
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

# A former name still works.
notice() {
  echo "notice: $1 is now $2; both work" >&2
}

execute() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

# Sets accelerator, machine_type, shape, hosts and chips_per_host for $machine.
read_machine() {
  local chips=1 factor kind=${machine%%:*}
  [ -n "$machine" ] || usage "--machine is missing"
  shape=${machine#*:}
  case $kind in
    v4) accelerator=tpu-v4-podslice machine_type=ct4p-hightpu dimensions=3 ;;
    v5p) accelerator=tpu-v5p-slice machine_type=ct5p-hightpu dimensions=3 ;;
    v5e) accelerator=tpu-v5-lite-podslice machine_type=ct5lp-hightpu dimensions=2 ;;
    v6e) accelerator=tpu-v6e-slice machine_type=ct6e-standard dimensions=2 ;;
    *) fail "--machine=$machine: known are v4, v5e, v5p, v6e, as v5e:8x8" ;;
  esac
  case $shape in
    *[!0-9x]* | x* | *x | *xx*)
      fail "--machine=$machine: no shape like 8x8"
      ;;
  esac
  # Word splitting is meant: 4x4x8 becomes three words.
  # shellcheck disable=SC2046
  set -- $(printf '%s' "$shape" | tr x ' ')
  [ $# -eq "$dimensions" ] ||
    fail "--machine=$machine: $kind has $dimensions dimensions, not $#"
  for factor in "$@"; do
    [ "$factor" -ge 1 ] || fail "--machine=$machine: an empty dimension"
    chips=$((chips * factor))
  done
  chips_per_host=4
  case $dimensions:$chips in
    # These smallest slices fit on one host.
    2:1 | 2:8) chips_per_host=$chips ;;
  esac
  [ $((chips % chips_per_host)) -eq 0 ] ||
    fail "--machine=$machine: $chips chips are not $chips_per_host a host"
  hosts=$((chips / chips_per_host))
  machine_type=$machine_type-${chips_per_host}t
}

# The arguments as a JSON list, which YAML reads as well.
json_list() {
  local word separator='['
  for word in "$@"; do
    printf '%s"%s"' "$separator" \
      "$(printf '%s' "$word" | sed 's/\\/\\\\/g; s/"/\\"/g')"
    separator=', '
  done
  printf ']'
}

# Text as the replacement of sed's s|...|...|.
escaped() {
  printf '%s' "$1" | sed 's/[\\&|]/\\&/g'
}

filled_in() {
  local spot_line
  spot_line='# any node'
  [ -z "$spot" ] || spot_line='cloud.google.com/gke-spot: "true"'
  sed -e "s|@NAME@|$name|" \
    -e "s|@NAMESPACE@|$namespace|" \
    -e "s|@SERVICE_ACCOUNT@|$service_account|" \
    -e "s|@MAX_RESTARTS@|$max_restarts|" \
    -e "s|@HOSTS@|$hosts|" \
    -e "s|@CHIPS_PER_HOST@|$chips_per_host|" \
    -e "s|@ACCELERATOR@|$accelerator|" \
    -e "s|@TOPOLOGY@|$shape|" \
    -e "s|# @SPOT@|$spot_line|" \
    -e "s|@IMAGE@|$(escaped "$image")|" \
    -e "s|@ARGUMENTS@|$(escaped "$(json_list "$@")")|" \
    "$here/gke_jobset.yaml"
}

submit() {
  local argument manifest config='' workdir=''
  [ -n "$image" ] || usage "--image is missing"
  for argument in "$@"; do
    case $argument in
      *'
'*) fail "an argument of paws_jax.main has more than one line" ;;
      --config=?*) config=1 ;;
      --workdir=gs://?*/?*) workdir=1 ;;
      --workdir=*) fail "$argument: pods share no disk, so gs://BUCKET/RUN" ;;
    esac
  done
  [ -n "$config" ] || usage "--config=RECIPE is missing after --"
  [ -n "$workdir" ] || usage "--workdir=gs://BUCKET/RUN is missing after --"
  read_machine
  # Complete before any of it is applied.
  manifest=$(filled_in "$@")
  if [ -n "$dry_run" ]; then
    echo "# kubectl apply --filename=- with"
    printf '%s\n' "$manifest"
  else
    printf '%s\n' "$manifest" | kubectl apply --filename=-
  fi
}

pool() {
  [ -n "$cluster" ] || usage "--cluster is missing"
  [ -n "$location" ] || usage "--location is missing"
  read_machine
  set -- "--cluster=$cluster" "--location=$location" \
    "--machine-type=$machine_type" "--num-nodes=$hosts"
  # The type of a machine that is an entire slice implies the topology.
  [ "$hosts" -eq 1 ] || set -- "$@" "--tpu-topology=$shape"
  [ -z "$node_location" ] || set -- "$@" "--node-locations=$node_location"
  [ -z "$project" ] || set -- "$@" "--project=$project"
  [ -z "$spot" ] || set -- "$@" --spot
  execute gcloud container node-pools create "$name" "$@"
}

here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || usage
[ "$1" != --help ] || help
command=$1
shift
name='' machine='' image='' spot='' dry_run='' cluster='' location=''
node_location='' project=${CLOUDSDK_CORE_PROJECT:-}
namespace=default service_account=default max_restarts=20
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --machine=*) machine=${1#*=} ;;
    --topology=*)
      notice --topology --machine
      machine=${1#*=}
      ;;
    --image=*) image=${1#*=} ;;
    --namespace=*) namespace=${1#*=} ;;
    --service-account=*) service_account=${1#*=} ;;
    --max-restarts=*) max_restarts=${1#*=} ;;
    --cluster=*) cluster=${1#*=} ;;
    --location=*) location=${1#*=} ;;
    --node-location=*) node_location=${1#*=} ;;
    --project=*) project=${1#*=} ;;
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

[ -n "$name" ] || usage "--name is missing"
for word in "$name" "$namespace" "$service_account"; do
  case $word in
    [!a-z]* | *[!a-z0-9-]*)
      fail "$word: lower-case letters, digits and dashes, a letter first"
      ;;
  esac
done
case $max_restarts in
  '' | *[!0-9]*) fail "--max-restarts=$max_restarts: not a number" ;;
esac

case $command in
  pool) pool ;;
  run) submit "$@" ;;
  devices | topology)
    [ "$command" = devices ] || notice topology devices
    name=$name-devices
    max_restarts=0
    submit --task=devices "$@"
    ;;
  log)
    pod_0=jobset.sigs.k8s.io/jobset-name=$name
    pod_0=$pod_0,batch.kubernetes.io/job-completion-index=0
    execute kubectl logs "--namespace=$namespace" --follow "--selector=$pod_0"
    ;;
  delete) execute kubectl delete jobset "$name" "--namespace=$namespace" ;;
  *) usage "unknown command $command" ;;
esac
