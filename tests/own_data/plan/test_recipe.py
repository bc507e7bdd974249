import pytest

from fasternet_mm.own_data.plan.recipe import MIN_STEPS_ON_GPUS, choose_batch, choose_recipe, choose_size


def recipe(count, task='detection', **changes):
    settings = dict(batch=2, processes=1, lr=2e-4, base_batch=16, size=(480, 640), size_reason='')
    return choose_recipe(task, count, **{**settings, **changes})


@pytest.mark.parametrize(
    ('count', 'epochs', 'steps'), [(20, 120, 1200), (200, 38, 3800), (2000, 12, 12_000), (20_000, 12, 120_000)]
)
def test_detection_sees_each_image_more_often_where_there_are_few(count, epochs, steps):
    chosen = recipe(count)
    assert (chosen.epochs, chosen.steps) == (epochs, steps)


@pytest.mark.parametrize(
    ('count', 'epochs', 'steps'), [(20, 400, 500), (200, 127, 1588), (2000, 40, 5000), (20_000, 40, 50_000)]
)
def test_segmentation_needs_more_epochs(count, epochs, steps):
    chosen = recipe(count, 'segmentation', batch=16)
    assert (chosen.epochs, chosen.steps) == (epochs, steps)


def test_a_run_is_never_too_short_to_learn_anything():
    assert recipe(2, batch=8).steps == 400
    assert recipe(2, batch=8).batch == 2


@pytest.mark.parametrize(('task', 'batch'), [('detection', 1), ('segmentation', 2)])
def test_one_image_is_cropped_twice_for_a_segmenter_whose_norms_need_two(task, batch):
    assert recipe(1, task, batch=8).batch == batch
    assert recipe(1, task, batch=8, processes=4).images_per_step == 4 * batch
    assert recipe(1, task, batch=1).batch == 1


def test_the_learning_rate_follows_the_root_of_the_batch_of_all_processes():
    assert recipe(100, batch=16).lr == pytest.approx(2e-4)
    assert recipe(100, batch=4).lr == pytest.approx(1e-4)
    assert recipe(100, batch=4, processes=4).lr == pytest.approx(2e-4)
    assert recipe(100, batch=4, processes=4).steps == recipe(100, batch=16).steps


def test_from_scratch_detectors_train_longer_and_their_learning_rate_is_never_lowered():
    usual, scratch = recipe(200, batch=16), recipe(200, batch=16, from_scratch=True)
    assert (usual.epochs, scratch.epochs) == (38, 48)  # 12 * sqrt(10) = 37.9, and a quarter more
    assert (usual.lr, scratch.lr) == (pytest.approx(2e-4), pytest.approx(2e-3))
    assert recipe(200, batch=4, from_scratch=True).lr == pytest.approx(1e-3)
    assert recipe(200, batch=16, lr=0.02, from_scratch=True).lr == pytest.approx(0.02)  # such as SGD's


def test_weights_are_averaged_over_a_tenth_of_the_run_and_images_are_plain_in_its_last_fifth():
    chosen = recipe(200, batch=8, epochs=40)
    assert chosen.steps == 40 * 25
    assert chosen.momentum == pytest.approx(1 / 100)
    assert chosen.plain_from == 32
    assert recipe(200, batch=8, epochs=1).plain_from == 0


def test_an_epoch_is_longer_by_the_images_that_are_repeated():
    assert recipe(20, batch=2, epochs=10, repeated=6).steps == 10 * 13


def test_warm_up_and_evaluations_are_tenths_of_the_run():
    chosen = recipe(20)
    assert (chosen.warmup, chosen.interval, chosen.interval_text) == (120, 12, '12 epochs')
    assert recipe(20_000).warmup == 500
    assert (recipe(2000).interval, recipe(2000).interval_text) == (1, 'epoch')
    assert recipe(2000, 'segmentation', batch=16).interval_text == '500 steps'


def test_what_the_user_says_about_size_and_length_holds():
    for size in ((400, 1000), (1000, 400)):
        chosen = recipe(20, size=size, epochs=3)
        assert (chosen.size, chosen.epochs, chosen.steps) == ((400, 1000), 3, 30)


@pytest.mark.parametrize(
    ('size', 'sides', 'chosen'),
    [
        ((480, 640), (100.0,), (480, 640)),
        ((640, 480), (100.0,), (480, 640)),
        ((480, 640), (24.0,), (640, 853)),  # 24 pixels become 32
        ((480, 640), (4.0,), (800, 1067)),  # as large as is allowed
        ((3000, 4000), (200.0,), (800, 1067)),
        ((3000, 4000), (40.0,), (800, 1067)),
        ((400, 4000), (200.0,), (133, 1333)),
        ((480, 640), (), (480, 640)),
    ],
)
def test_the_size_of_images_is_theirs_enlarged_for_small_objects_within_limits(size, sides, chosen):
    assert choose_size('detection', [size] * 5, sides * 5)[0] == chosen


def test_segmenters_are_trained_on_crops_that_fit_into_the_images():
    assert recipe(9, 'segmentation', size=(360, 480)).crop == 384
    assert recipe(9, 'segmentation', size=(480, 640)).crop == 480
    assert recipe(9, 'segmentation', size=(1024, 2048)).crop == 512


@pytest.mark.parametrize(
    ('count', 'processes', 'batch'),
    [(8, 1, 2), (20, 1, 2), (50, 1, 4), (100, 1, 8), (205, 1, 16), (100_000, 1, 16), (100_000, 8, 2), (100_000, 64, 1)],
)
def test_on_gpus_a_step_has_up_to_16_images_and_a_tenth_of_the_data_at_most(count, processes, batch):
    assert choose_batch('detection', count, processes, on_gpus=True)[0] == batch


def test_segmenters_have_two_images_in_each_process_on_gpus_too():
    assert choose_batch('segmentation', 100_000, 64, on_gpus=True)[0] == 2


def test_larger_batches_on_gpus_leave_enough_steps_to_learn():
    blood_cells = recipe(205, batch=16, least_steps=MIN_STEPS_ON_GPUS)
    assert (blood_cells.epochs, blood_cells.steps) == (93, 93 * 13)
    assert blood_cells.lr == pytest.approx(2e-4)
    assert recipe(20_000, batch=16, least_steps=MIN_STEPS_ON_GPUS).epochs == 12
