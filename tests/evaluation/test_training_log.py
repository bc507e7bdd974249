import json

import numpy as np
import pytest

from fasternet_mm.errors import UserError
from fasternet_mm.evaluation.training_log import plot_page, plot_runs, read_training_logs, render


def write(work_dir, start, *lines):
    folder = work_dir / start / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(
        '\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )


def step(number, epoch, loss):
    return dict(lr=0.1, loss=loss, loss_cls=loss / 2, time=0.1, epoch=epoch, iter=number, step=number)


@pytest.fixture
def resumed(tmp_path):
    """Two epochs of two steps; interrupted in the second, after its first step, and resumed from the first."""
    work_dir = tmp_path / 'resumed'
    metrics = {'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_l': -1.0, 'coco/cat_precision': 0.1, 'step': 1}
    write(work_dir, '20260101_000000', step(1, 1, 4.0), step(2, 1, 3.0), metrics, step(3, 2, 9.0), '{"lr": 0.1, "lo')
    write(
        work_dir,
        '20260102_000000',
        step(3, 2, 2.0),
        step(4, 2, float('nan')),
        metrics | {'coco/bbox_mAP': 0.3, 'step': 2},
    )
    return work_dir


def test_what_an_interruption_cost_is_overridden_by_what_came_after(resumed):
    (log,) = read_training_logs([resumed])
    steps, losses = log.curve('loss')
    assert steps.tolist() == [1, 2, 3, 4]
    np.testing.assert_equal(losses, [4, 3, 2, np.nan])
    assert [values.tolist() for values in log.curve('coco/bbox_mAP')] == [[2, 4], [0.1, 0.3]]
    assert log.curve('coco/bbox_mAP', 'epoch')[0].tolist() == [1, 2]
    assert np.isnan(log.curve('coco/bbox_mAP_l')[1]).all()


def titles(figures):
    return [figure.axes[0].get_title(loc='left') for figure in figures]


def test_panels_are_losses_learning_rate_and_metrics_but_not_those_of_classes(resumed):
    figures = plot_runs(read_training_logs([resumed]))
    assert titles(figures) == ['training losses', 'learning rate', 'validation: coco/bbox']
    labels = [
        [text.get_text().strip() for text in figure.axes[0].get_legend().texts]
        for figure in figures[::2]
        if figure.axes[0].get_legend()
    ]
    assert labels == [['loss', 'loss_cls']]


def test_several_runs_are_compared_scalar_by_scalar_under_their_names(resumed, tmp_path):
    write(tmp_path / 'other', '20260101_000000', step(1, 1, 5.0), dict(mIoU=40.0, step=1))
    runs = read_training_logs([resumed, tmp_path / 'other'])
    assert [run.name for run in runs] == ['resumed', 'other']
    assert titles(plot_runs(runs)) == ['loss', 'loss_cls', 'lr', 'coco/bbox_mAP', 'mIoU']
    assert titles(plot_runs(runs, ['loss*', 'mIoU'])) == ['loss', 'loss_cls', 'mIoU']
    assert len(plot_page(runs).axes) == 5


@pytest.mark.parametrize(('suffix', 'start'), [('.png', b'\x89PNG'), ('.svg', b'<?xml'), ('.pdf', b'%PDF')])
def test_pictures_are_the_same_bytes_each_time(suffix, start, resumed):
    first, second = (render(plot_page(read_training_logs([resumed])), suffix) for _ in range(2))
    assert first.startswith(start)
    assert first == second


def test_what_cannot_be_plotted_is_named(resumed, tmp_path):
    with pytest.raises(UserError, match=r"'los' is not among the scalars: use .*loss"):
        plot_runs(read_training_logs([resumed]), ['los'])
    with pytest.raises(UserError, match='has no scalars'):
        read_training_logs([tmp_path / 'nowhere'])
    write(tmp_path / 'nan', 'a', step(1, 1, float('nan')))
    with pytest.raises(UserError, match='nothing to plot'):
        plot_runs(read_training_logs([tmp_path / 'nan']), ['loss'])
    for number, lines in enumerate([('{', step(1, 1, 1.0)), ('[1]', step(1, 1, 1.0)), ('{"loss": 1.0}',)]):
        write(tmp_path / f'broken{number}', 'a', *lines)
        with pytest.raises(UserError, match=r"line 1 .*MMEngine's scalars.json is needed"):
            read_training_logs([tmp_path / f'broken{number}'])
