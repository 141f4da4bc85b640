#!/usr/bin/env bash
# A slice of Cloud TPUs, from nothing to a resumed run, with the cloud's own tools (queued resources).
#
#   PROJECT=… ZONE=… ACCELERATOR=v5litepod-256 experiments/tpu/slice.sh [--dry_run] COMMAND
#
# create    ask for the slice; it comes when there is room        install  copy this checkout, install it
# start     start the training on all hosts                       watch    follow the log of host 0
# resume    create, install and start again where it is gone      delete   give the slice back
#
# What is trained: CONFIG and WORKDIR (a bucket), further flags in FLAGS. --dry_run prints the commands.
set -euo pipefail

NAME="${NAME:-fourm}"
ACCELERATOR="${ACCELERATOR:-v5litepod-256}"
RUNTIME="${RUNTIME:-v2-alpha-tpuv5-lite}"
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
place=(--project="$PROJECT" --zone="$ZONE")

run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on_all_hosts() {
  run gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=all --command="$1"
}

create() {
  local more=()
  [ -z "$SPOT" ] || more+=(--spot)
  run gcloud compute tpus queued-resources create "$NAME" "${place[@]}" --node-id="$NAME" \
    --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" "${more[@]}"
}

wait_for_slice() {
  [ -z "$dry_run" ] || return 0
  local state=""
  until [ "$state" = ACTIVE ]; do
    state="$(gcloud compute tpus queued-resources describe "$NAME" "${place[@]}" \
      --format='value(state.state)')"
    echo "slice $NAME: $state"
    case "$state" in
      FAILED | SUSPENDED) fail "the slice is $state; delete it and create it again" ;;
      ACTIVE) ;;
      *) sleep 30 ;;
    esac
  done
}

install() {
  wait_for_slice
  run git archive --format=tar.gz --output=/tmp/fourm_jax.tar.gz HEAD
  run gcloud compute tpus tpu-vm scp /tmp/fourm_jax.tar.gz "$NAME:" "${place[@]}" --worker=all
  on_all_hosts 'mkdir -p fourm_jax && tar -xzf fourm_jax.tar.gz -C fourm_jax && cd fourm_jax && python3 -m venv .venv && .venv/bin/pip install -e ".[tpu,gcs]"'
}

start() {
  [ -n "$WORKDIR" ] || fail "WORKDIR is not set: a folder of a bucket, gs://…"
  # 75 and 76 say that the same command continues: a host was taken away and came back
  on_all_hosts "cd fourm_jax && nohup bash -c 'until .venv/bin/python -m experiments.train --cluster --config=$CONFIG --workdir=$WORKDIR $FLAGS; do code=\$?; [ \$code = 75 ] || [ \$code = 76 ] || exit \$code; sleep 10; done' > train.log 2>&1 &"
}

watch_log() {
  run gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=0 \
    --command="tail -n 100 -f fourm_jax/train.log"
}

delete() {
  run gcloud compute tpus queued-resources delete "$NAME" "${place[@]}" --force --quiet
}

case "$command" in
  create) create ;;
  install) install ;;
  start) start ;;
  watch) watch_log ;;
  resume)
    delete
    create
    install
    start
    ;;
  delete) delete ;;
  *) fail "command '$command', allowed: create, install, start, watch, resume, delete" ;;
esac
