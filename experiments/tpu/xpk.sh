#!/usr/bin/env bash
# The same on Kubernetes: a cluster of slices that many trainings share, through xpk (pip install xpk).
#
#   PROJECT=… ZONE=… CLUSTER=… experiments/tpu/xpk.sh [--dry_run] COMMAND
#
# create    a cluster with SLICES slices of ACCELERATOR           start    queue the training NAME
# list      trainings of the cluster and how they are             watch    follow the log of host 0
# stop      end the training; `start` continues it                delete   give the cluster back
#
# What is trained: CONFIG and WORKDIR (a bucket), further flags in FLAGS. The image is IMAGE with this
# checkout in it, as xpk builds it. A training whose host is taken away starts again, RESTARTS times.
# --dry_run prints the commands.
set -euo pipefail

NAME="${NAME:-fourm}"
ACCELERATOR="${ACCELERATOR:-v5litepod-256}"
SLICES="${SLICES:-1}"
RESTARTS="${RESTARTS:-100}"
IMAGE="${IMAGE:-python:3.12}"
CONFIG="${CONFIG:-configs/fourm.py:mix=mod21,size=xlarge}"
WORKDIR="${WORKDIR:-}"
FLAGS="${FLAGS:-}"
SPOT="${SPOT:-}"

dry_run=""
if [ "${1:-}" = "--dry_run" ]; then
  dry_run=yes
  shift
fi
command="${1:-}"

fail() {
  echo "error: $1" >&2
  exit 2
}

[ -n "${PROJECT:-}" ] || fail "PROJECT is not set"
[ -n "${ZONE:-}" ] || fail "ZONE is not set"
[ -n "${CLUSTER:-}" ] || fail "CLUSTER is not set"
place=(--project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER")

run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

create() {
  local capacity=--on-demand
  [ -z "$SPOT" ] || capacity=--spot
  run xpk cluster create "${place[@]}" --tpu-type="$ACCELERATOR" --num-slices="$SLICES" "$capacity"
}

start() {
  [ -n "$WORKDIR" ] || fail "WORKDIR is not set: a folder of a bucket, gs://…"
  run xpk workload create "${place[@]}" --workload="$NAME" --tpu-type="$ACCELERATOR" \
    --num-slices="$SLICES" --max-restarts="$RESTARTS" --base-docker-image="$IMAGE" --script-dir=. \
    --command="pip install -e '.[tpu,gcs]' && python -m experiments.train --cluster --config=$CONFIG --workdir=$WORKDIR $FLAGS"
}

case "$command" in
  create) create ;;
  start) start ;;
  list) run xpk workload list "${place[@]}" ;;
  watch)
    run kubectl logs --follow --tail=100 \
      --selector="jobset.sigs.k8s.io/jobset-name=$NAME,batch.kubernetes.io/job-completion-index=0"
    ;;
  stop) run xpk workload delete "${place[@]}" --workload="$NAME" ;;
  delete) run xpk cluster delete "${place[@]}" ;;
  *) fail "command '$command', allowed: create, start, list, watch, stop, delete" ;;
esac
