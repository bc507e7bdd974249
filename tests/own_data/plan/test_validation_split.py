import shutil

import pytest
from own_layouts import made, write_coco, write_images, write_json

from fasternet_mm.errors import UserError
from fasternet_mm.own_data.layouts.recognition import read_own_data
from fasternet_mm.own_data.plan.data_checks import check_own_data
from fasternet_mm.own_data.plan.validation_split import (
    EarlierSplit,
    ensure_validation,
    group_images,
    read_earlier_split,
)

SEEDS = range(50)


def validated(data, **options):
    return ensure_validation(data, check_own_data(data).images, **{'seed': 0, **options})


def only_train(tmp_path, count):
    write_coco(tmp_path, made(train=count, val=0))
    return read_own_data(str(tmp_path), True)


def names(data, split):
    return {image['file_name'].rpartition('/')[2] for image in data.splits[split]['images']}


def in_validation(images, seed, pattern=None):
    """Of ``{path: content}``, the paths that the hash alone puts into validation."""
    groups = group_images(list(images), list(images.values()), seed, pattern)
    return {list(images)[number] for group in groups if group.validation for number in group.images}


def test_a_fifth_of_many_images_is_for_validation():
    images = {f'{number}.jpg': str(number) for number in range(5000)}
    assert len(in_validation(images, 0)) == pytest.approx(1000, abs=100)  # 3.5 standard deviations


@pytest.mark.parametrize('seed', SEEDS)
def test_images_that_belong_together_are_never_apart(seed):
    images = {f'{number}.jpg': str(number) for number in range(20)}
    images |= {f'copy of {number}.jpg': str(number) for number in range(20)}
    images |= {f'train/{number}_jpg.rf.{copy}a9.jpg': f'{number} {copy}' for number in range(20) for copy in range(3)}
    images |= {f'video{number}_{frame}.png': f'v{number} {frame}' for number in range(20) for frame in range(3)}
    chosen = in_validation(images, seed, r'^(video\d+)_')
    for number in range(20):
        for together in (
            {f'{number}.jpg', f'copy of {number}.jpg'},
            {f'train/{number}_jpg.rf.{copy}a9.jpg' for copy in range(3)},
            {f'video{number}_{frame}.png' for frame in range(3)},
        ):
            assert together & chosen in (set(), together)
    assert 0 < len(chosen) < len(images)


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize(
    'new',
    [
        {'0.jpg': 'another'},
        {'a twin, named before the others.jpg': '7'},
        {'train/3_jpg.rf.00.jpg': 'another copy', 'train/00_jpg.rf.0.jpg': 'the first copy of another'},
        {'video1_9.png': 'another frame', 'video0_1.png': 'the first frame of another'},
    ],
)
def test_images_that_are_added_move_none(seed, new):
    images = {f'{number}.jpg': str(number) for number in range(1, 30)}
    images |= {f'twin of {number}.jpg': str(number) for number in range(1, 10)}
    images |= {f'train/{number}_jpg.rf.{copy}.jpg': f'{number} {copy}' for number in range(1, 10) for copy in (1, 2)}
    images |= {f'video{number}_{frame}.png': f'v{number} {frame}' for number in range(1, 10) for frame in (1, 2)}
    before = in_validation(images, seed, r'^(video\d+)_')
    after = in_validation({**new, **images}, seed, r'^(video\d+)_')
    assert after & images.keys() == before
    assert in_validation(dict(reversed(images.items())), seed, r'^(video\d+)_') == before


def test_a_group_is_the_first_group_of_the_expression_or_its_match():
    images = {f'{day}/{camera}-{n}.jpg': f'{day} {camera} {n}' for day in 'ab' for camera in 'xy' for n in range(3)}
    for pattern, count in ((r'^(.)/', 2), (r'[xy](?=-)', 2), (r'./.', 4), (r'a/(.)', 2 + 6)):
        assert len(group_images(list(images), list(images.values()), 0, pattern)) == count, pattern


@pytest.mark.parametrize(
    ('pattern', 'message'),
    [
        ('(', r"--group '\(' is not a regular expression"),
        ('video', r"--group 'video' matches none of the 12 images.*p0000"),
    ],
)
def test_an_expression_that_cannot_be_meant_is_refused(pattern, message, tmp_path):
    with pytest.raises(UserError, match=message):
        validated(only_train(tmp_path, 12), pattern=pattern)


def test_groups_are_for_data_that_are_not_split_yet(tmp_path):
    write_coco(tmp_path, made())
    with pytest.raises(UserError, match=r'--group .* has no validation split yet, but .* has train, val'):
        validated(read_own_data(str(tmp_path), True), pattern='p')


def test_without_a_validation_part_images_go_there_with_their_objects(tmp_path):
    data = only_train(tmp_path, 30)
    objects = len(data.splits['train']['annotations'])
    how = validated(data)
    count = len(data.splits['val']['images'])
    assert f'{count / 30:.0%} ({count} of 30 images) for validation, by a hash of each (seed 0)' in how
    assert len(data.splits['train']['images']) == 30 - count
    assert sum(len(content['annotations']) for content in data.splits.values()) == objects
    for content in data.splits.values():
        ids = {image['id'] for image in content['images']}
        assert {record['image_id'] for record in content['annotations']} <= ids
    assert not names(data, 'train') & names(data, 'val')


def test_files_of_equal_bytes_stay_together_and_that_is_said(tmp_path):
    splits = made(train=20, val=0)
    write_images(tmp_path, splits['train'])
    twins = {f't{name[1:]}': objects for name, objects in splits['train'].items()}
    for name in splits['train']:
        shutil.copy(tmp_path / name, tmp_path / f't{name[1:]}')
    content = dict(images=[], annotations=[], categories=[dict(id=1, name='cat')])
    for number, name in enumerate([*splits['train'], *twins]):
        content['images'].append(dict(id=number, file_name=name, width=64, height=48))
        record = dict(id=number, image_id=number, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)
        content['annotations'].append(record)
    write_json(tmp_path / 'a.json', content)
    data = read_own_data(str(tmp_path), True)
    how = validated(data)
    assert '40 images are 20 groups' in how
    for split in ('train', 'val'):
        assert names(data, split) == {f'{letter}{name[1:]}' for name in names(data, split) for letter in 'pt'}


def with_classes(tmp_path, classes):
    """Images, each with one object of a class, or with none."""
    write_images(tmp_path, [f'p{number:05d}.png' for number in range(len(classes))])
    ids = {name: number for number, name in enumerate(sorted({*classes} - {None}))}
    categories = [dict(id=number, name=name) for name, number in ids.items()]
    content = dict(images=[], annotations=[], categories=categories)
    for number, name in enumerate(classes):
        content['images'].append(dict(id=number, file_name=f'p{number:05d}.png', width=64, height=48))
        if name is not None:
            record = dict(id=number, image_id=number, category_id=ids[name], bbox=[1, 1, 9, 9], area=81, iscrowd=0)
            content['annotations'].append(record)
    write_json(tmp_path / 'a.json', content)
    return lambda: read_own_data(str(tmp_path), True)


def test_a_class_that_two_images_have_is_in_both_parts_whatever_the_seed(tmp_path):
    read = with_classes(tmp_path, ['cat', None, None, 'cat', *['dog'] * 3, *[None] * 5])
    moved = set()
    for seed in range(200):  # in some the hash has all of a class in one part, in some in the other
        data = read()
        how = validated(data, seed=seed)
        for split in ('train', 'val'):
            assert all(data.class_counts[split]), (seed, split)
        moved |= {word for word in ('validation', 'training') if f'moved to {word}, where' in how}
    assert moved == {'validation', 'training'}


def test_a_class_of_one_image_is_trained_and_its_absence_from_validation_is_said(tmp_path):
    read = with_classes(tmp_path, ['cat', *['dog'] * 11])
    for seed in SEEDS:
        data = read()
        how = validated(data, seed=seed)
        assert [counts[0] for counts in data.class_counts.values()] == [1, 0]
        assert "not in validation, which says nothing about them: 'cat'" in how


def test_a_class_that_the_datas_own_validation_part_lacks_is_said(tmp_path):
    splits = made(train=6, val=3)
    splits['val'] = {name: [obj for obj in objects if obj[0] != 'cat'] for name, objects in splits['val'].items()}
    write_coco(tmp_path, splits)
    assert validated(read_own_data(str(tmp_path), True)).splitlines()[1:] == [
        "not in validation, which says nothing about them: 'cat'"
    ]


def test_images_that_all_hang_together_are_evaluated_on_as_well_and_that_is_said(tmp_path):
    data = only_train(tmp_path, 12)
    said = validated(data, pattern='.')
    assert 'says nothing about other images' in said
    assert f'{len(data.image_paths["train"])} images are 1 group: images that are equal or belong together' in said
    assert data.splits['val'] == data.splits['train']


def test_few_images_are_evaluated_on_as_well_and_that_is_said(tmp_path):
    data = only_train(tmp_path, 4)
    assert 'says nothing about other images' in validated(data)
    assert data.splits['val'] == data.splits['train']


def test_a_validation_part_is_kept_and_a_test_part_serves_as_one(tmp_path):
    write_coco(tmp_path, made())
    data = read_own_data(str(tmp_path), True)
    before = dict(data.splits)
    assert validated(data).splitlines()[0] == 'as the data has it'
    assert data.splits == before
    data.splits['test'] = data.splits.pop('val')
    assert 'test serves as val' in validated(data)
    assert data.splits['val'] is data.splits['test']


def test_a_resumed_run_keeps_its_split_and_new_images_go_by_the_hash(tmp_path):
    data = only_train(tmp_path, 20)
    files = [f'images/train/p{number:05d}.png' for number in range(20)]
    # As no hash would have it: every second one. The last four are new, and of those of the run one is gone.
    parts = dict(train=frozenset(files[0:16:2]), val=frozenset([*files[1:16:2], 'gone.png']))
    for seed in SEEDS:
        data = read_own_data(str(tmp_path), True)
        how = validated(data, seed=seed, earlier=EarlierSplit(tmp_path / 'data', parts))
        for split, part in parts.items():
            split_files = {image['file_name'] for image in data.splits[split]['images']}
            assert split_files & {*files[:16]} == part - {'gone.png'}
        assert 'as the run has it' in how
        assert f'new images, by a hash of each (seed {seed}): 4; gone: 1' in how


def test_a_new_twin_goes_where_the_resumed_run_has_its_twin(tmp_path):
    data = only_train(tmp_path, 12)
    image = tmp_path / 'images/train/p00005.png'
    shutil.copy(image, tmp_path / 'images/train/p00000.png')
    files = [f'images/train/p{number:05d}.png' for number in range(1, 12)]
    for split in ('train', 'val'):
        other = [file for file in files if not file.endswith('5.png')]
        parts = {'train': frozenset(other[:5]), 'val': frozenset(other[5:])}
        parts[split] |= {files[4]}
        data = read_own_data(str(tmp_path), True)
        validated(data, earlier=EarlierSplit(tmp_path, parts))
        assert {'p00000.png', 'p00005.png'} <= names(data, split)


def test_the_split_of_a_run_is_read_from_its_lists_whatever_their_kind(tmp_path):
    root = tmp_path / 'images'
    assert read_earlier_split(tmp_path, root) is None
    for part in ('train', 'val'):
        write_json(tmp_path / f'{part}.json', dict(images=[dict(id=0, file_name=f'a/{part}.png')]))
    assert read_earlier_split(tmp_path, root).parts == {part: {f'a/{part}.png'} for part in ('train', 'val')}
    for part in ('train', 'val'):
        write_json(tmp_path / f'{part}.json', [dict(img_path=f'{root}/b/{part}.png', seg_map_path='/x')])
    assert read_earlier_split(tmp_path, root).parts == {part: {f'b/{part}.png'} for part in ('train', 'val')}
    (tmp_path / 'val.json').write_text('{')
    with pytest.raises(UserError, match=r'val.json, the split of the run to resume, cannot be read'):
        read_earlier_split(tmp_path, root)


def test_another_data_folder_than_the_resumed_runs_is_refused(tmp_path):
    parts = dict(train=frozenset(['elsewhere.png']), val=frozenset(['other.png']))
    with pytest.raises(UserError, match='none of its images is in this data'):
        validated(only_train(tmp_path, 12), earlier=EarlierSplit(tmp_path, parts))
