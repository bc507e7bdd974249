import re

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from fasternet_mm.datasets.checks import check_data
from fasternet_mm.errors import UserError

HEIGHT, WIDTH = 20, 30
CLASSES = ('road', 'sky', 'tree')


def labels(*values):
    """A label map with these values in its first pixels."""
    result = np.zeros((HEIGHT, WIDTH), np.uint8)
    result[0, : len(values)] = values
    return result


@pytest.fixture
def cfg(tmp_path):
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    for name in 'abcd':
        cv2.imwrite(str(tmp_path / 'images' / f'{name}.jpg'), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        cv2.imwrite(str(tmp_path / 'labels' / f'{name}.png'), labels(0, 1, 2, 255))
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        metainfo=dict(classes=CLASSES),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
    )
    model = dict(decode_head=dict(num_classes=3), auxiliary_head=[dict(num_classes=3), dict(num_classes=3)])
    wrapped = dict(type='RepeatDataset', times=2, dataset=dataset)
    return Config(dict(default_scope='mmseg', model=model, train_dataloader=dict(dataset=wrapped)))


@pytest.fixture
def dataset(cfg):
    return cfg.train_dataloader.dataset.dataset


@pytest.fixture
def ade(cfg, dataset):
    """The same folders as ADE20K, in whose label maps 0 is no class."""
    dataset.update(type='ADE20KDataset', metainfo=None)
    cfg.model = dict(decode_head=dict(num_classes=150))
    return dataset


def message_of(cfg):
    with pytest.raises(UserError) as error:
        check_data(cfg, ['train'])
    return str(error.value)


def save(folder, name, array, **options):
    Image.fromarray(array).save(folder / 'labels' / f'{name}.png', **options)


def test_label_maps_that_fit_pass(cfg):
    check_data(cfg, ['train'])


def test_label_maps_without_an_image_do_no_harm(cfg, tmp_path):
    save(tmp_path, 'z', labels(77))
    check_data(cfg, ['train'])


def test_the_first_bad_label_map_is_named_and_all_are_counted(cfg, tmp_path):
    save(tmp_path, 'd', labels(9))
    save(tmp_path, 'b', labels(1, 3, 254))
    (tmp_path / 'labels' / 'c.png').unlink()
    assert message_of(cfg) == (
        f'{tmp_path}/labels/b.png has the labels 3, 254, but 0 to 2 are classes, 255 ignored (reduce_zero_label=False) '
        '(3 of the 4 label maps of train_dataloader.dataset.dataset are bad)'
    )


def test_of_many_strange_labels_a_few_are_named(cfg, tmp_path):
    save(tmp_path, 'a', labels(*range(10, 20)))
    assert 'has the labels 10, 11, 12, 13, 14, … (' in message_of(cfg)


def test_the_label_that_the_head_ignores_is_allowed_and_no_other(cfg, tmp_path):
    head = dict(num_classes=3, ignore_index=11)
    cfg.model = dict(data_preprocessor=dict(seg_pad_val=11), decode_head=head, auxiliary_head=[head])
    assert 'a.png has the labels 255, but 0 to 2 are classes, 11 ignored' in message_of(cfg)
    for name in 'abcd':
        save(tmp_path, name, labels(0, 1, 11))
    check_data(cfg, ['train'])


IGNORING = {
    'model.decode_head.ignore_index': 11,
    'model.auxiliary_head.0.ignore_index': 11,
    'model.auxiliary_head.1.ignore_index': 11,
    'model.data_preprocessor.seg_pad_val': 11,
    'val_evaluator.ignore_index': 11,
}


@pytest.mark.parametrize('place', [*IGNORING][1:])
@pytest.mark.parametrize('other', [255, None])
def test_parts_that_ignore_different_labels_are_refused(cfg, tmp_path, place, other):
    for name in 'abcd':
        save(tmp_path, name, labels(0, 1, 11))
    cfg.val_dataloader, cfg.val_evaluator = cfg.train_dataloader, dict(type='IoUMetric', iou_metrics=['mIoU'])
    cfg.model.data_preprocessor = dict(size=(64, 64))
    cfg.merge_from_dict(IGNORING)
    check_data(cfg, ['train', 'val'])
    if other is None:  # left to the default
        parent, name = place.rsplit('.', 1)
        node = cfg
        for part in parent.split('.'):
            node = node[int(part)] if part.isdigit() else node[part]
        del node[name]
    else:
        cfg.merge_from_dict({place: other})
    with pytest.raises(UserError) as error:
        check_data(cfg, ['train', 'val'])
    assert str(error.value) == (
        f'{place}=255, but model.decode_head.ignore_index=11, so pixels that count for the one do not for the other: '
        f'set {place}=11, or both to the label that does not count'
    )


@pytest.mark.parametrize(
    ('evaluator', 'place'),
    [
        ([dict(type='IoUMetric'), dict(type='IoUMetric', ignore_index=3)], 'val_evaluator.1.ignore_index'),
        (dict(metrics=[dict(type='IoUMetric', ignore_index=3)]), 'val_evaluator.metrics.0.ignore_index'),
        (dict(type='CityscapesMetric', output_dir='x', ignore_index=3), 'val_evaluator.ignore_index'),
    ],
)
def test_each_of_several_metrics_must_ignore_what_the_heads_do(cfg, evaluator, place):
    cfg.val_dataloader, cfg.val_evaluator = cfg.train_dataloader, evaluator
    with pytest.raises(UserError, match=f'^{place}=3, but model.decode_head.ignore_index=255'):
        check_data(cfg, ['val'])


@pytest.mark.parametrize(
    ('step', 'place'),
    [
        (dict(type='RandomRotate', prob=0.5, degree=10), 'seg_pad_val'),
        (dict(type='Pad', size=(64, 64)), 'pad_val.seg'),
        (dict(type='mmseg.RandomMosaic', prob=0.5, seg_pad_val=254), 'seg_pad_val'),
    ],
)
def test_steps_that_pad_must_pad_with_what_the_heads_ignore(cfg, dataset, step, place):
    dataset.pipeline = [*dataset.pipeline, step]
    head = dict(num_classes=3, ignore_index=11)
    cfg.model = dict(data_preprocessor=dict(seg_pad_val=11), decode_head=head)
    assert re.match(f'train_dataloader.dataset.dataset.pipeline.2.{place}=25[45], but .*=11', message_of(cfg))


def test_reduce_zero_label_ignores_255(cfg, ade, tmp_path):
    cfg.model = dict(decode_head=dict(num_classes=150, ignore_index=11))
    assert 'by which the labels 0 and 255 become 255, but the heads, padding and metrics ignore 11' in message_of(cfg)


def test_more_classes_than_8_bits_hold_are_refused(cfg, dataset, tmp_path):
    save(tmp_path, 'a', np.full((HEIGHT, WIDTH), 300, np.uint16))
    dataset.metainfo.classes = [f'c{number}' for number in range(301)]
    cfg.model = dict(decode_head=dict(num_classes=301))
    assert 'has labels up to 300, but MMSegmentation reads label maps as 8 bits' in message_of(cfg)


def test_with_reduce_zero_label_zero_is_allowed_and_classes_count_from_one(cfg, ade, tmp_path):
    save(tmp_path, 'a', labels(0, 1, 150, 255))
    check_data(cfg, ['train'])
    save(tmp_path, 'a', labels(0, 151))
    assert 'has the labels 151, but 1 to 150 are classes, 0 and 255 ignored (reduce_zero_label=True)' in message_of(cfg)


def test_the_config_overrules_the_types_reduce_zero_label(cfg, ade, tmp_path):
    save(tmp_path, 'a', labels(150))
    ade.reduce_zero_label = False
    assert 'has the labels 150, but 0 to 149 are classes, 255 ignored' in message_of(cfg)


def test_chosen_classes_are_found_by_the_types_own_numbers(cfg, ade, tmp_path):
    ade.metainfo = dict(classes=('sky', 'wall'))
    cfg.model.decode_head.num_classes = 2
    save(tmp_path, 'a', labels(150))
    check_data(cfg, ['train'])
    save(tmp_path, 'a', labels(151))
    assert 'has the labels 151, but 1 to 150 are classes' in message_of(cfg)


def test_palettes_and_bits_are_read_as_mmseg_reads_them(cfg, tmp_path):
    paletted = Image.fromarray(labels(0, 1, 2, 255))
    paletted.putpalette([200, 100, 50] * 256)
    paletted.save(tmp_path / 'labels' / 'a.png')
    save(tmp_path, 'b', labels(1, 2, 255).astype(np.uint16))
    save(tmp_path, 'c', labels(1).astype(bool))
    assert [Image.open(tmp_path / 'labels' / f'{name}.png').mode for name in 'abc'] == ['P', 'I;16', '1']
    check_data(cfg, ['train'])


@pytest.mark.parametrize('kind', ['P', 'I;16'])
def test_strange_labels_are_found_in_palettes_and_16_bits(cfg, tmp_path, kind):
    array = labels(1, 7) if kind == 'P' else labels(1, 7).astype(np.uint16) * 100
    image = Image.fromarray(array)
    if kind == 'P':
        image.putpalette([1, 1, 1] * 256)
    image.save(tmp_path / 'labels' / 'a.png')
    assert f'has the labels {"7" if kind == "P" else "100, 700"}, but' in message_of(cfg)


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'LA'])
def test_colors_are_no_labels(cfg, tmp_path, mode):
    Image.new(mode, (WIDTH, HEIGHT)).save(tmp_path / 'labels' / 'b.png')
    assert message_of(cfg).startswith(
        f'{tmp_path}/labels/b.png has mode {mode}: a label map has one channel, the numbers of classes (1 of'
    )


def test_another_size_than_the_images_is_named_with_both(cfg, tmp_path):
    save(tmp_path, 'b', labels().T.copy())
    assert message_of(cfg).startswith(
        f'{tmp_path}/labels/b.png has 30x20 pixels (H x W), its image {tmp_path}/images/b.jpg 20x30 (1 of the 4'
    )


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_sizes_are_those_that_mmcv_reads_from_a_turned_image(cfg, dataset, tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x112] = orientation
    dataset.img_suffix = suffix
    for name in 'abcd':
        Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'images' / f'{name}{suffix}', exif=exif)
        height, width, _ = cv2.imread(str(tmp_path / 'images' / f'{name}{suffix}')).shape
        save(tmp_path, name, np.zeros((height, width), np.uint8))
    check_data(cfg, ['train'])
    save(tmp_path, 'b', np.zeros((width, height), np.uint8))
    assert f'b.png has {width}x{height} pixels (H x W), its image {tmp_path}/images/b{suffix} {height}x{width} (1' in (
        message_of(cfg)
    )


def test_a_missing_label_map_is_named_with_its_image(cfg, dataset, tmp_path):
    dataset.seg_map_suffix = '_labels.png'
    assert message_of(cfg).startswith(
        f'{tmp_path}/labels/a_labels.png does not exist, the label map of {tmp_path}/images/a.jpg (4 of the 4'
    )


def test_a_listed_image_that_is_missing_is_named(cfg, dataset, tmp_path):
    (tmp_path / 'list.txt').write_text('a\nx\n')
    dataset.ann_file = 'list.txt'
    assert message_of(cfg).startswith(f'{tmp_path}/images/x.jpg does not exist (1 of the 2')


def test_only_listed_images_are_checked(cfg, dataset, tmp_path):
    save(tmp_path, 'b', labels(77))
    (tmp_path / 'list.txt').write_text('a\nc\n')
    dataset.ann_file = 'list.txt'
    check_data(cfg, ['train'])


@pytest.mark.parametrize('indices', [1, [0, 2]])
def test_only_the_images_that_indices_choose_are_checked(cfg, dataset, tmp_path, indices):
    save(tmp_path, 'b', labels(77))
    dataset.indices = indices
    check_data(cfg, ['train'])


def test_images_in_subfolders_are_found(cfg, tmp_path):
    for folder, suffix in (('images', 'jpg'), ('labels', 'png')):
        (tmp_path / folder / 'town').mkdir()
        Image.new('L', (WIDTH, HEIGHT), 99).save(tmp_path / folder / 'town' / f'z.{suffix}')
    assert message_of(cfg).startswith(f'{tmp_path}/labels/town/z.png has the labels 99')


def test_a_folder_without_images_is_named_with_the_suffix(cfg, dataset, tmp_path):
    dataset.img_suffix = '.jpeg'
    assert message_of(cfg) == (
        "train_dataloader.dataset.dataset has no images with img_suffix='.jpeg': "
        f'no file in {tmp_path}/images has that suffix'
    )


def test_an_empty_list_is_named(cfg, dataset, tmp_path):
    (tmp_path / 'list.txt').touch()
    dataset.ann_file = 'list.txt'
    assert message_of(cfg).endswith(f"no images with img_suffix='.jpg': {tmp_path}/list.txt is empty")


def cut(content):
    return content[:-30]


def flipped(content):
    at = content.index(b'IDAT') + 6
    return content[:at] + bytes(255 - byte for byte in content[at : at + 8]) + content[at + 8 :]


@pytest.mark.parametrize(
    ('folder', 'damage', 'message'),
    [
        ('labels', cut, 'cannot be read ('),
        ('labels', flipped, 'cannot be read ('),
        ('labels', lambda content: b'', 'is not an image'),
        ('labels', lambda content: b'<!doctype html>', 'is not an image'),
        ('images', lambda content: b'<!doctype html>', 'is not an image'),
    ],
)
def test_a_file_that_cannot_be_read_is_named(cfg, tmp_path, folder, damage, message):
    [file] = (tmp_path / folder).glob('b.*')
    file.write_bytes(damage(file.read_bytes()))
    assert message_of(cfg).startswith(f'{file} {message}')
    assert '(1 of the 4' in message_of(cfg)


def test_classes_that_the_type_lacks_are_an_error_that_names_the_data_set(cfg, ade):
    ade.metainfo = dict(classes=('wall', 'unicorn'))
    message = message_of(cfg)
    assert message.startswith("train_dataloader.dataset.dataset cannot be built: new classes ('wall', 'unicorn') is")
    assert len(message) < 400


def test_a_data_set_without_classes_is_told_to_name_them(cfg, dataset):
    del dataset['metainfo']
    assert 'train_dataloader.dataset.dataset has no classes: set its metainfo=dict(classes=(…))' in message_of(cfg)


def test_a_pipeline_with_its_own_loader_decides_what_label_maps_are(cfg, dataset, tmp_path):
    save(tmp_path, 'a', labels(77))
    dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadMyColors')]
    check_data(cfg, ['train'])


@pytest.mark.parametrize('head', ['decode_head', 'auxiliary_head.1'])
def test_heads_need_the_number_of_classes(cfg, head):
    cfg.merge_from_dict({f'model.{head}.num_classes': 19})
    assert message_of(cfg) == (
        f'model.{head}.num_classes=19, but train_dataloader.dataset.dataset has 3 classes (road, sky, tree): '
        f'set it with --cfg-options model.{head}.num_classes=3'
    )


def test_a_single_auxiliary_head_counts_and_one_for_edges_does_not(cfg):
    cfg.model.auxiliary_head = dict(type='STDCHead', num_classes=2)
    check_data(cfg, ['train'])
    cfg.model.auxiliary_head.type = 'FCNHead'
    assert message_of(cfg).startswith('model.auxiliary_head.num_classes=2, but')


def test_training_on_broken_label_maps_ends_with_one_line_and_nothing_written(
    cfg, fixtures, root, tmp_path, monkeypatch, command
):
    save(tmp_path, 'c', labels(7))
    config, work = tmp_path / 'config.py', tmp_path / 'work'
    config.write_text(
        f"_base_ = '{fixtures / 'fcn_shapes.py'}'\n"
        f"data = dict(data_root='{tmp_path}', data_prefix=dict(img_path='images', seg_map_path='labels'))\n"
        "train_dataloader = dict(dataset=dict(**data, img_suffix='.jpg', indices=None))\n"
    )
    monkeypatch.chdir(root)
    done = command('train', config, '--work-dir', work)
    assert done.returncode == 2
    [error] = done.stderr.strip().splitlines()
    assert error.startswith(
        f'fasternet-mm train: error: {tmp_path}/labels/c.png has the labels 7, but 0 to 6 are classes'
    )
    assert error.endswith('(1 of the 4 label maps of train_dataloader.dataset are bad)')
    assert not work.exists()


@pytest.mark.parametrize(('scale', 'becomes'), [(None, '20x30'), ((45, 45), '30x45'), ((100, 31), '31x47')])
def test_images_that_fasternet_cannot_take_are_named_before_a_run(cfg, dataset, scale, becomes):
    cfg.model.backbone = dict(type='fasternet_mm.FasterNet')
    if scale:
        dataset.pipeline = [*dataset.pipeline, dict(type='Resize', scale=scale, keep_ratio=True)]
    cfg.val_dataloader, cfg.val_evaluator = dict(dataset=dataset), dict(type='IoUMetric')
    with pytest.raises(UserError, match=f'a.jpg of 20x30 pixels .H x W. becomes {becomes}, and each side must have 32'):
        check_data(cfg, ['val'])
    check_data(cfg, ['train'])  # there they are padded
    dataset.pipeline = [*dataset.pipeline[:2], dict(type='Resize', scale=(100, 32), keep_ratio=True)]
    cfg.val_dataloader.dataset = dataset
    check_data(cfg, ['val'])


def test_images_of_which_resizing_leaves_nothing_are_named_before_training(cfg, dataset, tmp_path):
    for folder, suffix, mode in (('images', 'jpg', 'RGB'), ('labels', 'png', 'L')):
        Image.new(mode, (3000, 2)).save(tmp_path / folder / f'b.{suffix}')
    resize = dict(type='RandomResize', scale=(640, 480), ratio_range=(0.5, 2.0), keep_ratio=True)
    dataset.pipeline = [*dataset.pipeline, resize]
    # 2 pixels · 320 / 3000 is rounded to 0.
    assert 'b.jpg of 2x3000 pixels (H x W) becomes 0x320, and each side must have 1 or more' in message_of(cfg)
