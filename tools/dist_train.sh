#!/usr/bin/env bash
# Train in several processes on one machine, or on several (NNODES, NODE_RANK, MASTER_ADDR, PORT in the environment).
#   bash tools/dist_train.sh CONFIG PROCESSES [options of fasternet-mm train]
[ $# -ge 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
exec python -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$2" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --module fasternet_mm train "$1" --launcher pytorch "${@:3}"
