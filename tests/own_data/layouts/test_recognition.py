import shutil

import pytest
from own_layouts import BOXES, CLASSES, POLYGONS, made, write_coco, write_json

from fasternet_mm.own_data.layouts.recognition import read_own_data


def with_train_and_val(data):
    """Roboflow calls its folder valid."""
    for content in data.splits.values():
        for image in content['images']:
            image['file_name'] = image['file_name'].replace('/valid/', '/val/')
    return data.splits


def expected(splits):
    """The normal form, written out from the made set itself."""
    content = {}
    categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, start=1)]
    for split, objects_of in splits.items():
        images, annotations = [], []
        for name in sorted(objects_of):
            image = dict(id=len(images) + 1, file_name=f'images/{split}/{name}', width=64, height=48)
            images.append(image)
            for kind, (x, y, w, h), polygon in objects_of[name]:
                ids = dict(id=len(annotations) + 1, image_id=image['id'], category_id=CLASSES.index(kind) + 1)
                ids |= dict(bbox=[x, y, w, h], area=w * h, iscrowd=0)
                if polygon:
                    # The made polygon lacks one corner, a triangle, of its box.
                    ids |= dict(segmentation=[polygon], area=w * h - (w // 2) * (h - h // 2) / 2)
                annotations.append(ids)
        content[split] = dict(images=images, annotations=annotations, categories=categories)
    return content


@pytest.mark.parametrize('layout', BOXES)
def test_the_same_boxes_give_equal_content_from_every_layout(layout, tmp_path):
    splits = made(masks=False)
    BOXES[layout](tmp_path, splits)
    data = read_own_data(str(tmp_path), True)
    assert [str(problem) for problem in data.problems if problem.severe] == []
    assert with_train_and_val(data) == expected(splits)
    assert not data.with_masks


@pytest.mark.parametrize('layout', POLYGONS)
def test_the_same_polygons_give_equal_content_from_every_layout_that_holds_them(layout, tmp_path):
    splits = made()
    POLYGONS[layout](tmp_path, splits)
    data = read_own_data(str(tmp_path), True)
    assert with_train_and_val(data) == expected(splits)
    assert data.with_masks
    assert data.classes == CLASSES


def test_what_is_read_can_be_written_and_read_again(tmp_path):
    write_coco(tmp_path, made())
    data = read_own_data(str(tmp_path), True)
    again = tmp_path / 'again'
    shutil.copytree(tmp_path / 'images', again / 'images')
    for split, content in data.splits.items():
        write_json(again / f'{split}.json', content)
    assert read_own_data(str(again), True).splits == data.splits
    assert list(data.splits) == ['train', 'val']
