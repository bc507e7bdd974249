import json
import xml.dom.minidom

import numpy as np
import pytest
from PIL import Image

from fasternet_mm.errors import UserError
from fasternet_mm.report.plots import write_figure
from fasternet_mm.report.training_log import read_training_logs
from fasternet_mm.report.training_plots import plot_page, plot_runs


def train(step, loss, epoch=None, **more):
    """A line as MMEngine writes it while training; by iterations, without an epoch."""
    counters = dict(iter=step, step=step) | ({} if epoch is None else dict(epoch=epoch))
    return dict(lr=1 / step, data_time=0.1, loss=loss, loss_cls=loss / 2, time=0.5, memory=9, **counters, **more)


def evaluate(step, **metrics):
    return {**{name.replace('__', '/'): value for name, value in metrics.items()}, 'time': 0.5, 'step': step}


@pytest.fixture
def write(tmp_path):
    def write(*lines, run='run', start='20260101_000000', end='\n'):
        path = tmp_path / run / start / 'vis_data' / 'scalars.json'
        path.parent.mkdir(parents=True)
        path.write_text('\n'.join(json.dumps(line) for line in lines) + end)
        return tmp_path / run

    return write


def read(path):
    (log,) = read_training_logs([path])
    return log


def curve(log, key, at='step'):
    return [part.tolist() for part in log.curve(key, at)]


def test_scalars_are_curves_over_iterations(write):
    log = read(write(train(10, 4, 1), train(20, 3, 2), evaluate(2, coco__bbox_mAP=0.25)))
    assert log.name == 'run'
    assert curve(log, 'loss') == [[10, 20], [4, 3]]
    assert curve(log, 'lr') == [[10, 20], [0.1, 0.05]]
    assert curve(log, 'coco/bbox_mAP') == [[20], [0.25]]


def test_evaluations_are_counted_in_epochs_or_in_iterations(write):
    by_epoch = read(write(train(10, 4, 1), evaluate(1, mIoU=5), train(20, 3, 2), evaluate(2, mIoU=6), run='a'))
    assert curve(by_epoch, 'mIoU') == [[10, 20], [5, 6]]
    assert curve(by_epoch, 'mIoU', 'epoch') == [[1, 2], [5, 6]]
    # MMSegmentation has no epochs; an evaluation need not be at a logged iteration.
    by_iteration = read(write(train(10, 4), evaluate(15, mIoU=5), train(20, 3), evaluate(30, mIoU=6), run='b'))
    assert curve(by_iteration, 'mIoU') == [[15, 30], [5, 6]]
    for runs, label in (([by_epoch], 'epoch'), ([by_iteration], 'iteration'), ([by_epoch, by_iteration], 'iteration')):
        assert plot_runs(runs, ['mIoU'])[0].axes[0].get_xlabel() == label


def test_a_later_start_replaces_what_was_logged_from_its_first_step_on(write):
    epochs = [(train(10 * epoch, 10 - epoch, epoch), evaluate(epoch, mIoU=10 - epoch)) for epoch in (1, 2, 3)]
    write(*(line for epoch in epochs for line in epoch), start='20260101_000000')
    # Resumed from the first epoch, and stopped before the third.
    work = write(train(20, 5, 2), evaluate(2, mIoU=5), start='20260102_000000')
    assert curve(read(work), 'loss') == [[10, 20], [9, 5]]
    assert curve(read(work), 'mIoU', 'epoch') == [[1, 2], [9, 5]]
    write(train(10, 1, 1), start='20260103_000000')  # from the beginning
    assert curve(read(work), 'loss') == [[10], [1]]
    assert curve(read(work), 'mIoU') == [[], []]


def test_what_is_not_finite_and_cocos_minus_one_are_gaps(write):
    metrics = dict(coco__bbox_mAP_l=-1, mIoU=-1, coco__AR_s=-1)
    log = read(
        write(train(1, float('nan')), train(2, float('inf')), train(3, 10**60), train(4, 5), evaluate(4, **metrics))
    )
    np.testing.assert_equal(log.curve('loss')[1], [np.nan, np.nan, np.nan, 5])
    assert np.isnan(log.curve('coco/bbox_mAP_l')[1])
    assert np.isnan(log.curve('coco/AR_s')[1])
    assert log.curve('mIoU')[1] == [-1]
    (losses, *_) = plot_runs([log])
    assert losses.axes[0].get_ylim()[1] < 6


def test_a_last_line_that_was_cut_off_is_left_out(write):
    assert curve(read(write(train(1, 4), train(2, 3), end='\n{"lr": 0.1, "lo')), 'loss') == [[1, 2], [4, 3]]


def test_a_folder_within_the_work_directory_or_the_file_itself_will_do(write):
    work = write(train(1, 4))
    start = work / '20260101_000000'
    for path in (work, start, start / 'vis_data', start / 'vis_data' / 'scalars.json', str(work)):
        assert curve(read(path), 'loss') == [[1], [4]]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"lr": 1\n{"step": 1}', 'line 1 is not JSON'),
        ('{"step": 1}\n[]', 'line 2 has no step'),
        ('{"loss": 1}', 'line 1 has no step'),
        ('{"step": "1"}', 'line 1 has no step'),
        ('{"step": NaN}', 'line 1 has no step'),
        ('{"step": 1, "epoch": 1e300}', 'line 1 has no step, or one that is no count'),
        ('{"step": 1' + '0' * 400 + '}', 'line 1 has no step'),
        ('[' * 100_000 + '\n1', 'line 1 is not JSON'),
        ('\x00\xff\n{}', 'line 1 is not JSON'),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    (tmp_path / 'scalars.json').write_bytes(content.encode('latin1'))
    with pytest.raises(UserError, match=rf'scalars.json: {message}.*: MMEngine.s scalars.json is needed'):
        read(tmp_path)


def test_a_folder_without_scalars_is_named_with_where_they_were_looked_for(tmp_path):
    with pytest.raises(
        UserError, match=r'no scalars \(looked for .*/\*/vis_data/scalars.json, .*/vis_data/scalars.json, '
    ):
        read(tmp_path)


def legend(axes_or_figure):
    legends = getattr(axes_or_figure, 'legends', None) or [axes_or_figure.get_legend()]
    return [text.get_text().strip() for text in legends[0].get_texts()]


def test_one_run_is_drawn_in_groups(write):
    metrics = {f'coco__{task}_{name}': 0.5 for task in ('bbox', 'segm') for name in ('mAP', 'mAP_50')}
    metrics |= dict(coco__cat_precision=0.5, coco__segm_mAP_l=-1)
    run = read(write(train(1, 4, 1, acc=50), train(2, 2, 1), *(evaluate(n, **metrics) for n in (1, 2))))
    figures = plot_runs([run])
    titles = [figure.axes[0].get_title(loc='left') for figure in figures]
    assert titles == ['losses', 'learning rate', 'validation: coco/bbox', 'validation: coco/segm']
    assert legend(figures[0].axes[0]) == ['loss', 'loss_cls']
    assert legend(figures[3].axes[0]) == ['mAP', 'mAP_50']
    raw, smoothed, *_ = figures[0].axes[0].get_lines()
    assert raw.get_ydata().tolist() == smoothed.get_ydata().tolist() == [4, 2]
    assert [axes.get_title(loc='left') for axes in plot_page([run]).axes] == titles


def test_the_losses_of_training_and_validation_are_side_by_side_over_the_same_steps(write):
    losses = {f'loss_{name}': 1.0 for name in ('rpn_cls', 'rpn_bbox', 'bbox', 'mask')}  # and loss_cls, as Mask R-CNN
    epochs = [
        (train(10 * epoch, 5 - epoch, epoch, **losses), evaluate(epoch, validation_loss=loss))
        for epoch, loss in ((1, 4), (2, 3), (3, 6))
    ]
    run = read(write(*(line for epoch in epochs for line in epoch)))
    figures = plot_runs([run])
    titles = [figure.axes[0].get_title(loc='left') for figure in figures]
    assert titles == ['loss of training and validation', 'losses', 'learning rate']
    axes = figures[0].axes[0]
    assert legend(axes) == ['loss', 'validation_loss']
    _, smoothed, validation = axes.get_lines()
    assert smoothed.get_xdata().tolist() == validation.get_xdata().tolist() == [10, 20, 30]
    assert validation.get_ydata().tolist() == [4, 3, 6]
    assert (smoothed.get_marker(), validation.get_marker()) == ('None', 'o')


def test_more_scalars_than_colors_get_several_panels(write):
    losses = {f'd{layer}.loss_{name}': 1.0 for layer in range(3) for name in ('cls', 'bbox', 'iou')}
    figures = plot_runs([read(write(train(1, 4, **losses), train(2, 3, **losses)))], ['*loss*'])
    assert [len(figure.axes[0].get_lines()) for figure in figures] == [12, 10]  # each twice: as logged and smoothed


def test_several_runs_share_a_panel_for_each_scalar(write, tmp_path):
    runs = [
        write(train(1, 4), train(2, 3), evaluate(2, mIoU=5), run='_old'),
        write(train(1, 8), train(3, 6), evaluate(3, mIoU=7), run='new $x$'),
    ]
    figures = plot_runs(read_training_logs(runs))
    assert [figure.axes[0].get_title(loc='left') for figure in figures] == ['loss', 'loss_cls', 'lr', 'mIoU']
    assert legend(figures[0]) == ['_old', 'new $x$']
    assert [bar.get_width() for bar in figures[3].axes[0].patches] == [5, 7]
    assert [text.get_text() for text in figures[3].axes[0].get_yticklabels()] == ['_old', 'new $x$']
    write_figure(tmp_path / 'loss.svg', figures[0])
    assert 'new $x$</text>' in (tmp_path / 'loss.svg').read_text()


def test_a_single_evaluation_is_bars_with_their_values_and_no_curve(write):
    runs = [write(evaluate(1, coco__bbox_mAP=0.25), run='a'), write(evaluate(1, coco__bbox_mAP=-1), run='b')]
    (figure,) = plot_runs(read_training_logs(runs))
    axes = figure.axes[0]
    assert (axes.get_title(loc='left'), axes.get_xlabel()) == ('coco/bbox_mAP', 'evaluated once')
    assert list(axes.get_lines()) == []
    assert [text.get_text() for text in axes.get_yticklabels()] == ['a', 'b']
    assert [text.get_text() for text in axes.texts] == ['0.250', 'none']


def test_two_evaluations_are_a_curve(write):
    (figure,) = plot_runs([read(write(evaluate(1, mIoU=5), evaluate(2, mIoU=6)))])
    assert [line.get_ydata().tolist() for line in figure.axes[0].get_lines()] == [[5, 6]]


def test_a_run_that_lacks_a_scalar_is_in_the_legend_all_the_same(write):
    runs = read_training_logs([write(train(1, 4), run='a'), write(train(1, 8, acc=5), run='b')])
    page = plot_page(runs, ['acc', 'loss'])
    assert sorted(legend(page)) == ['a', 'b']
    colors = [[line.get_color() for line in axes.get_lines()[::2]] for axes in page.axes]
    assert colors[0] == colors[1][1:]


def test_smoothing_keeps_a_line_and_evens_out_noise(write):
    noise = np.random.default_rng(0).normal(0, 1, 400)
    steps = range(1, 401)
    log = read(write(*(train(step, 1000 - step + noise[step - 1], even=2 * step) for step in steps)))
    (figure,) = plot_runs([log], ['loss'])
    raw, smoothed = (line.get_ydata() - 1000 + np.array(steps) for line in figure.axes[0].get_lines())
    np.testing.assert_allclose(raw, noise, atol=1e-9)
    assert np.abs(smoothed[20:-20]).max() < 1 < np.abs(noise).max()
    (figure,) = plot_runs([log], ['even'])
    np.testing.assert_allclose(figure.axes[0].get_lines()[1].get_ydata()[20:-20], 2 * np.array(steps)[20:-20])


def test_keys_choose_scalars_in_their_order(write):
    log = read(write(train(1, 4, acc=50), evaluate(1, coco__bbox_mAP=0.1, coco__cat_precision=0.2)))
    titles = [f.axes[0].get_title(loc='left') for f in plot_runs([log], ['coco/*_precision', 'acc', 'loss'])]
    assert titles == ['coco/cat_precision', 'acc', 'losses']
    with pytest.raises(
        UserError, match=r"'los' is not among the scalars: use data_time, loss, loss_cls, .*coco/bbox_mAP"
    ):
        plot_runs([log], ['loss', 'los'])


def test_nothing_to_plot_is_said(write):
    empty = read(write(evaluate(1, coco__bbox_mAP=-1)))
    for keys in ((), ['coco/bbox_mAP']):
        with pytest.raises(UserError, match='run: nothing to plot'):
            plot_page([empty], keys)


def test_images_are_transparent_or_white_and_svg_runs_nothing(write, tmp_path):
    figure = plot_page([read(write(train(1, 4, **{'loss<script>': 1.0}), train(2, 3)))])
    corners = []
    for transparent in (True, False):
        write_figure(tmp_path / 'page.png', figure, transparent)
        corners.append(Image.open(tmp_path / 'page.png').convert('RGBA').getpixel((0, 0)))
    assert corners == [(255, 255, 255, 0), (255, 255, 255, 255)]
    for name in ('page.svg', 'again.svg', 'page.pdf'):
        write_figure(tmp_path / name, figure)
    svg = (tmp_path / 'page.svg').read_bytes()
    assert not xml.dom.minidom.parseString(svg).getElementsByTagName('script')
    assert b'loss&lt;script&gt;' in svg
    assert (tmp_path / 'again.svg').read_bytes() == svg
    assert (tmp_path / 'page.pdf').read_bytes().startswith(b'%PDF')
