#!/usr/bin/env bash
# Train in several processes on one machine, or on several (NNODES, NODE_RANK, MASTER_ADDR, PORT in the environment).
#   bash tools/dist_train.sh CONFIG PROCESSES [options of fasternet-mm train]
# SIGTERM, SIGINT, SIGUSR1 and SIGHUP end it with a checkpoint and the status 128 + the signal's number, within
# TORCH_ELASTIC_SHUTDOWN_TIMEOUT seconds (30). MAX_RESTARTS: how often it goes on by itself from the last checkpoint
# after a process has died; 0 by default.
[ $# -ge 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
exec python -m fasternet_mm.engine.launching --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --nproc_per_node="$2" --max_restarts="${MAX_RESTARTS:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --module fasternet_mm train "$1" --launcher pytorch "${@:3}"
