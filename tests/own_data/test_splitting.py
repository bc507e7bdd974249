from collections import Counter

import numpy as np
import pytest
from own_layouts import made, write_coco

from fasternet_mm.own_data.layouts import read_own_data
from fasternet_mm.own_data.pictures import describe_pictures
from fasternet_mm.own_data.splitting import ensure_validation, split_pictures


def test_each_class_has_a_fifth_of_its_pictures_in_validation_even_a_rare_one():
    generator = np.random.default_rng(0)
    shares = (0.9, 0.5, 0.2, 0.05)
    labels = [[label for label, share in enumerate(shares) if generator.random() < share] for _ in range(400)]
    chosen = split_pictures(labels, seed=0)
    assert sum(chosen) == pytest.approx(80, abs=2)
    total = Counter(label for one in labels for label in one)
    for label, count in total.items():
        inside = sum(label in one for one, take in zip(labels, chosen) if take)
        assert inside == pytest.approx(count / 5, abs=1.01)


def test_a_seed_gives_the_same_split_again_and_another_one_another():
    labels = [[number % 3] for number in range(60)]
    assert split_pictures(labels, 1) == split_pictures(labels, 1)
    assert split_pictures(labels, 1) != split_pictures(labels, 2)


def validated(data):
    pictures = {split: describe_pictures(data, split) for split in data.splits}
    return ensure_validation(data, pictures, seed=0), pictures


def only_train(tmp_path, count):
    write_coco(tmp_path, made(train=count, val=0))
    return read_own_data(str(tmp_path), True)


def test_without_a_validation_part_pictures_go_there_with_their_objects(tmp_path):
    data = only_train(tmp_path, 30)
    objects = len(data.splits['train']['annotations'])
    how, pictures = validated(data)
    assert '20% of the pictures' in how
    assert [len(data.splits[split]['images']) for split in ('train', 'val')] == [24, 6]
    assert sum(len(content['annotations']) for content in data.splits.values()) == objects
    for content in data.splits.values():
        ids = {image['id'] for image in content['images']}
        assert {one['image_id'] for one in content['annotations']} <= ids
    names = [{image['file_name'] for image in data.splits[split]['images']} for split in ('train', 'val')]
    assert not names[0] & names[1]
    assert pictures == {split: describe_pictures(data, split) for split in ('train', 'val')}


def test_few_pictures_are_evaluated_on_as_well_and_that_is_said(tmp_path):
    data = only_train(tmp_path, 4)
    assert 'says nothing about other pictures' in validated(data)[0]
    assert data.splits['val'] == data.splits['train']


def test_a_validation_part_is_kept_and_a_test_part_serves_as_one(tmp_path):
    write_coco(tmp_path, made())
    data = read_own_data(str(tmp_path), True)
    kept = dict(data.splits)
    assert validated(data)[0] == 'as the data has it'
    assert data.splits == kept
    data.splits['test'] = data.splits.pop('val')
    assert 'test serves as val' in validated(data)[0]
    assert data.splits['val'] is data.splits['test']
