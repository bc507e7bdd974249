from types import SimpleNamespace

from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from fasternet_mm.engine.terminal import data_and_schedule, shorten

LONG = (
    '\n' + '-' * 60 + '\nSystem environment:',
    'Config:\nmodel = dict()',
    'Hooks will be executed in the following order:\nbefore_run',
)
"""What MMEngine's runner logs at its start."""


def logger_of_run(tmp_path):
    """A logger as a run has it: to the terminal and to a file."""
    built = MMLogger('run', log_file=str(tmp_path / 'run.log'))
    shorten(built)
    return built


def test_the_terminal_has_what_people_need_and_the_file_everything(tmp_path, capsys):
    logger = logger_of_run(tmp_path)
    for message in (*LONG, 'step'):
        logger.info(message)
    logger.info('bbox: mAP 0.5', extra=dict(for_file=True))
    logger.warning('"FileClient" will be deprecated in future.')
    logger.warning('%s is not saved', 'epoch_1.pth')
    lines = [line.partition(' ')[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == ['step', 'warning: epoch_1.pth is not saved']
    written = (tmp_path / 'run.log').read_text()
    for text in ('System environment', 'model = dict()', 'before_run', 'step', 'mAP 0.5', 'FileClient', 'epoch_1.pth'):
        assert text in written


def test_an_error_shows_its_traceback(tmp_path, capsys):
    logger = logger_of_run(tmp_path)
    try:
        raise KeyError('gone')
    except KeyError:
        logger.exception('failed')
    shown = capsys.readouterr().out
    assert ' error: failed\nTraceback ' in shown
    assert shown.endswith("KeyError: 'gone'\n")


def test_what_is_shortened_twice_is_shown_once(tmp_path, capsys):
    logger = logger_of_run(tmp_path)
    shorten(logger)
    assert len(logger.handlers[0].filters) == len(set(logger.handlers[0].filters))
    logger.info('step')
    assert capsys.readouterr().out.count('step') == 1


class Loader(list):
    """As many steps as the list is long, on so many images."""

    def __init__(self, images, steps=0):
        super().__init__([None] * steps)
        self.dataset = [None] * images


def run(kind, max_epochs, max_iters, interval, validation=None):
    loop = kind.__new__(kind)
    loop.dataloader, loop.val_interval = Loader(1600, 200), interval
    return SimpleNamespace(
        train_loop=loop,
        val_loop=None if validation is None else SimpleNamespace(dataloader=validation),
        max_epochs=max_epochs,
        max_iters=max_iters,
        cfg=ConfigDict(train_dataloader=dict(batch_size=8)),
    )


def test_data_and_schedule_are_told_by_the_epoch_and_by_the_step():
    assert data_and_schedule(run(EpochBasedTrainLoop, 1, 200, 1)) == {
        'data': '1,600 images',
        'schedule': '1 epoch of 200 steps, 8 images each',
    }
    assert data_and_schedule(run(EpochBasedTrainLoop, 10, 2000, 1, Loader(1)))['schedule'] == (
        '10 epochs of 200 steps, 8 images each; validated every epoch'
    )
    assert data_and_schedule(run(IterBasedTrainLoop, 1, 40000, 4000, Loader(100))) == {
        'data': '1,600 images to train on, 100 to validate',
        'schedule': '40,000 steps, 8 images each; validated every 4,000 steps',
    }
