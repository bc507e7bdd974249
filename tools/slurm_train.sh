#!/usr/bin/env bash
# Train under Slurm (GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS in the environment; 8, 8, 5 and nothing by default).
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of fasternet-mm train]
[ $# -ge 3 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
# shellcheck disable=SC2086  # SRUN_ARGS is a list of options
exec srun --partition="$1" --job-name="$2" --gres="gpu:${GPUS_PER_NODE:-8}" --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -um fasternet_mm train "$3" --launcher slurm "${@:4}"
