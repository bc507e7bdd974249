#!/usr/bin/env bash
#SBATCH --signal=USR1@120 --requeue --open-mode=append
# Train under Slurm (GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS in the environment; 8, 8, 5 and nothing by default).
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of fasternet-mm train]
# As a batch job, which goes on by itself where the time limit or another job cuts it, until the training is done:
#   sbatch --partition=PARTITION --job-name=JOB_NAME --ntasks=8 --ntasks-per-node=8 --gres=gpu:8 --cpus-per-task=5 \
#       --time=12:00:00 tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options]
# Two minutes before the limit (--signal), Slurm sends SIGUSR1: the training saves a checkpoint and ends with status 138.
# The job is then put into the queue again, where it goes on from that checkpoint, as after a preemption by Slurm.
# Without sbatch nothing can be put into the queue: give the same command again, with --resume.
[ $# -ge 3 ] || { sed -n '3,4s/^# //p' "$0" >&2; exit 2; }
# shellcheck disable=SC2086  # SRUN_ARGS is a list of options
srun --partition="$1" --job-name="$2" --gres="gpu:${GPUS_PER_NODE:-8}" --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
    --signal=USR1@120 ${SRUN_ARGS:-} \
    python -um fasternet_mm train "$3" --launcher slurm "${@:4}"
status=$?
if [ "$status" = 138 ] && [ "${ENVIRONMENT:-}" = BATCH ]; then  # 128 + SIGUSR1, in a job of sbatch
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
