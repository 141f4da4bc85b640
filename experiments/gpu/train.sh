#!/usr/bin/env bash
# A training on GPU hosts under Slurm: one process per GPU, continued for as long as it takes.
#
#   sbatch --nodes=4 experiments/gpu/train.sh --config=configs/fourm.py:mix=mod21,size=large --workdir=/shared/run
#
# The job is put back into the queue when its time is nearly over or a host is lost (exit codes 75
# and 76); the same command continues. `bash experiments/gpu/train.sh --dry_run …` prints what it runs.
#SBATCH --job-name=fourm
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@300
#SBATCH --output=%x-%j.log
set -euo pipefail

command=(srun --kill-on-bad-exit=0 "${PYTHON:-.venv/bin/python}" -m experiments.train --cluster)
if [ "${1:-}" = "--dry_run" ]; then
  shift
  printf '%q ' "${command[@]}" "$@"
  echo
  exit 0
fi

code=0
"${command[@]}" "$@" || code=$?
case "$code" in
  75 | 76) scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit "$code"
