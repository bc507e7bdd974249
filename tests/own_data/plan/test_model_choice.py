import pytest
from own_layouts import made, write_coco, write_yolo

from fasternet_mm.engine.device_memory import GIB, Card
from fasternet_mm.engine.packaged_configs import config_names
from fasternet_mm.own_data.layouts.annotated_data import DetectionData, SegmentationData
from fasternet_mm.own_data.plan.model_choice import ACCURATE, FAST, VARIANTS, choose_model
from fasternet_mm.own_data.plan.training_plan import read_data


def data(count=100, masks=(True, True)):
    """As many images, and an object for each of ``masks``."""
    annotations = [dict(iscrowd=0, image_id=0, **(dict(segmentation=[]) if mask else {})) for mask in masks]
    images = [dict(file_name=f'{number}.jpg') for number in range(count)]
    return DetectionData('COCO', None, dict(train=dict(images=images, annotations=annotations)))


@pytest.fixture(autouse=True)
def _paths(monkeypatch):
    monkeypatch.setattr(DetectionData, 'image_paths', property(lambda self: dict(train=self.splits['train']['images'])))


def card(free):
    return Card('a card', int(free * GIB), 80 * GIB, True)


LABEL_MAPS = SegmentationData('index PNGs', None, dict(train=[(None, None)] * 10), ['a'], [(0, 0, 0)], {}, True)


@pytest.mark.parametrize(
    ('content', 'config', 'reason'),
    [
        (data(), 'rtmdet_ins_fasternet_t0', 'for boxes and masks; T0, the smallest variant, since a CPU trains it'),
        (data(masks=(False,)), 'rtmdet_fasternet_t0', 'for boxes; T0'),
        (data(masks=(True, False, False)), 'rtmdet_fasternet_t0', 'boxes alone, since 2 of the 3 objects have no mask'),
        (LABEL_MAPS, 'fpn_fasternet_t0', 'for a class for each pixel; T0'),
    ],
)
def test_the_annotations_choose_what_is_learned_and_a_cpu_the_smallest_variant(content, config, reason):
    choice = choose_model(content)
    assert choice.config == config
    assert reason in choice.reason


@pytest.mark.parametrize(
    ('count', 'free', 'variant', 'reason'),
    [
        (205, 40, 't1', 'T1, for 205 images on a GPU'),
        (1001, 40, 't2', 'T2, for 1,001 images on a GPU'),
        (100_000, 40, 's', 'S, for 100,000 images on a GPU'),
        (100_000, 9, 't2', 'T2, the largest variant for 9.0 GiB of memory that are free'),
        (205, 2, 't0', 'T0, the largest variant for 2.0 GiB'),
    ],
)
def test_on_gpus_the_number_of_images_and_the_fullest_memory_choose_the_variant(count, free, variant, reason):
    choice = choose_model(data(count), [card(80), card(free)])
    assert choice.config == f'rtmdet_ins_fasternet_{variant}'
    assert reason in choice.reason


@pytest.mark.parametrize(
    ('tilt', 'cards', 'config', 'reason'),
    [
        ('fast', 0, 'rtmdet_ins_fasternet_t0', '--fast changes nothing, since there is no faster one'),
        ('accurate', 0, 'rtmdet_ins_fasternet_t1', 'T1, larger than T0, for --accurate'),
        ('fast', 1, 'rtmdet_ins_fasternet_t0', 'T0, smaller than T1, for --fast'),
        ('accurate', 1, 'mask_rcnn_fasternet_s', 'for --accurate, with heads that take more time'),
    ],
)
def test_a_tilt_takes_the_next_variant_and_on_gpus_the_accurate_family(tilt, cards, config, reason):
    choice = choose_model(data(), [card(40)] * cards, tilt)
    assert choice.config == config
    assert reason in choice.reason


def test_whatever_is_chosen_is_packaged():
    names = config_names()
    for content in (data(20_000), data(20_000, (False,)), LABEL_MAPS):
        for cards in ((), [card(40)], [card(1)]):
            for tilt in (None, 'fast', 'accurate'):
                assert choose_model(content, cards, tilt).config in names
    assert {*FAST} == {*ACCURATE}
    assert VARIANTS[0] == 't0'


@pytest.mark.parametrize(('write', 'config'), [(write_coco, 'rtmdet_ins'), (write_yolo, 'rtmdet')])
def test_it_is_chosen_from_data_as_they_are_read(write, config, tmp_path, monkeypatch):
    monkeypatch.undo()
    write(tmp_path, made(train=4, masks=config == 'rtmdet_ins'))
    assert choose_model(read_data(str(tmp_path))).config == f'{config}_fasternet_t0'
