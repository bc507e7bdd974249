"""Several processes agree on what the first one finds; gloo, two processes."""

import os
import socket
import subprocess
import sys

import pytest

from fasternet_mm.engine.processes import from_rank_0, start_processes
from fasternet_mm.errors import UserError

SCRIPT = """
import os
import sys
import fasternet_mm.cli
import fasternet_mm.cli.train
from mmengine.config import Config

def main(args):
    import torch
    from mmengine.dist import get_world_size
    from fasternet_mm.engine.processes import alone, from_rank_0, start_processes
    from fasternet_mm.errors import UserError

    start_processes(Config(dict(launcher='pytorch')))
    rank = int(os.environ['RANK'])
    calls = []
    for answer in ('a', 'b'):
        print(from_rank_0(lambda: calls.append(1) or f'{answer} of {rank}'), len(calls))

    def try_alone():
        value = torch.ones(1)
        with alone():
            torch.distributed.all_reduce(value)
            return get_world_size(), value.item()

    print(from_rank_0(try_alone), get_world_size())

    try:
        from_rank_0(lambda: sys.exit(143))
    except SystemExit as end:
        print('ended with', end.code)

    def fail():
        raise UserError('the data is wrong')

    from_rank_0(fail)

fasternet_mm.cli.train.main = main
fasternet_mm.cli.main(['train', 'mask_rcnn_fasternet_s'])
"""


def in_two_processes(script, cwd):
    """Status, output and errors of each."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_ADDR='localhost', MASTER_PORT=port)
        environment = {**os.environ, **{key: str(value) for key, value in environment.items()}}
        command = [sys.executable, '-c', script]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        environment['CUDA_VISIBLE_DEVICES'] = ''
        processes.append(subprocess.Popen(command, cwd=cwd, env=environment, **pipes))
    outputs = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs)]


def test_all_processes_have_what_the_first_one_computes_alone_and_end_with_its_error(root):
    (first, said, error), (second, said_too, silence) = in_two_processes(SCRIPT, root)
    tried_alone = '(1, 1.0) 2\nended with 143\n'
    assert said == f'a of 0 1\nb of 0 2\n{tried_alone}', error
    assert said_too == f'a of 0 0\nb of 0 0\n{tried_alone}', silence
    assert (first, second) == (2, 2)
    assert 'error: the data is wrong' in error
    assert 'error' not in silence


def test_one_process_is_called_itself():
    start_processes(dict(launcher='none'))
    assert from_rank_0(lambda: 'mine') == 'mine'

    def fail():
        raise UserError('the data is wrong')

    with pytest.raises(UserError, match='the data is wrong'):
        from_rank_0(fail)


@pytest.mark.parametrize(('launcher', 'program'), [('pytorch', 'torchrun'), ('slurm', 'srun')])
def test_a_launcher_that_did_not_start_this_process_is_named(launcher, program, monkeypatch):
    for variable in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=f'--launcher {launcher} is for processes that {program} starts'):
        start_processes(dict(launcher=launcher))
