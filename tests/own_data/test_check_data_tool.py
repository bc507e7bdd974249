"""fasternet-mm check-data as a person runs it."""

import json

import pytest
from own_layouts import made, write_coco, write_images


@pytest.fixture
def check(command):
    def check(*args):
        """The status and what was printed."""
        done = command('check-data', *args)
        return done.returncode, done.stdout

    return check


def test_sound_data_are_counted(check, tmp_path):
    write_coco(tmp_path, made())
    status, printed = check(tmp_path)
    assert status == 0
    rows = [line.split('|')[1:-1] for line in printed.splitlines() if line.startswith('| ')]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ['COCO', 'train', 'val'],
        ['images', '3', '2'],
        ['images without annotations', '1', '0'],
        ['objects with outlines', '4', '4'],
        ['class bird', '1', '1'],
        ['class cat', '2', '2'],
        ['class traffic light', '1', '1'],
    ]
    assert printed.endswith('no problems\n')


def test_a_warning_is_shown_but_is_no_failure(check, tmp_path):
    write_coco(tmp_path, {'train': made()['train']})
    path = tmp_path / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['annotations'][0].update(bbox=[3, 3, 0, 5], segmentation=[])
    path.write_text(json.dumps(content))
    status, printed = check(tmp_path)
    assert status == 0
    assert 'empty object (1, a warning)\n  ' in printed


def test_crowds_and_objects_without_outlines_are_counted_apart(check, tmp_path):
    write_coco(tmp_path, {'train': made()['train']})
    path = tmp_path / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['annotations'][0].update(iscrowd=1)
    content['annotations'][1].update(segmentation=[[1, 1, 5, 5]])
    path.write_text(json.dumps(content))
    status, printed = check(tmp_path)
    assert status == 0
    rows = [line.split('|')[1:-1] for line in printed.splitlines() if line.startswith('| ')]
    assert [[cell.strip() for cell in row] for row in rows][1:-3] == [
        ['images', '3'],
        ['images without annotations', '1'],
        ['objects with outlines', '2'],
        ['objects with boxes', '1'],
        ['crowds or difficult, neither trained nor scored', '1'],
    ]
    assert sum(int(row[1]) for row in rows[-3:]) == 3


def test_of_many_problems_20_are_shown_and_all_are_written(check, tmp_path):
    write_coco(tmp_path, made(train=40))
    broken = sorted((tmp_path / 'images/train').iterdir())[:25]
    for image in broken:
        image.write_bytes(image.read_bytes()[:-60])
    status, printed = check(tmp_path, '--json', tmp_path / 'found.json')
    assert status == 1
    assert 'unreadable image (25, to be mended)' in printed
    assert printed.count('is cut off or broken') == 20
    assert '… and 5 more' in printed
    records = json.loads((tmp_path / 'found.json').read_text())
    assert [record['file'] for record in records] == [str(image) for image in broken]
    assert {(record['kind'], record['severe']) for record in records} == {('unreadable image', True)}


def test_label_maps_are_checked_where_there_are_no_objects_or_when_asked_for(check, tmp_path):
    write_coco(tmp_path, {'train': made()['train']})
    write_images(tmp_path / 'masks/train', made()['train'])
    (tmp_path / 'classes.txt').write_text('black 0 0 0\nother 100 0 0\n')
    assert '| COCO ' in check(tmp_path)[1]
    status, printed = check(tmp_path, '--kind', 'label-maps')
    assert status == 1
    assert 'unknown label (2, to be mended)' in printed
