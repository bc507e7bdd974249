"""One made data set, written in the layouts of labeling tools. Nothing here comes from the package."""

import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = ['bird', 'cat', 'traffic light']


def made(train=3, val=2, objects=2, masks=True, size=(64, 48)):
    """Images by split: ``{name: [(class, box x y width height, polygon), …]}``; every third image is empty.

    Coordinates are whole pixels, which all layouts can hold.
    """
    generator = np.random.default_rng(0)
    width, height = size
    splits, number = {}, 0
    for split, count in (('train', train), ('val', val)):
        splits[split] = {}
        for _ in range(count):
            objects_of_image = []
            for k in range(objects if number % 3 != 2 else 0):
                x, y = generator.integers(0, width - 12), generator.integers(0, height - 12)
                w, h = generator.integers(4, 12, 2)
                x, y, w, h = map(int, (x, y, w, h))
                polygon = [x, y, x + w, y, x + w, y + h, x + w // 2, y + h, x, y + h // 2] if masks else None
                objects_of_image.append((CLASSES[(number + k) % len(CLASSES)], [x, y, w, h], polygon))
            splits[split][f'p{number:05d}.png'] = objects_of_image
            number += 1
    return {split: images for split, images in splits.items() if images}


def write_images(folder, names, size=(64, 48)):
    """Images that all differ."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        image = np.zeros((size[1], size[0], 3), np.uint8)
        image[:8, :8] = int(name[1:6]) % 256, int(name[1:6]) // 256, 100
        assert cv2.imwrite(str(Path(folder, name)), image)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def coco_content(objects_of, first_id=7, classes=CLASSES, size=(64, 48)):
    """Ids begin anywhere, and records are in no order."""
    images, annotations = [], []
    for name in sorted(objects_of, reverse=True):
        images.append(dict(id=first_id + len(images), file_name=name, width=size[0], height=size[1]))
        for kind, box, polygon in objects_of[name]:
            record = dict(id=100 + len(annotations), image_id=images[-1]['id'], category_id=10 + classes.index(kind))
            record |= dict(bbox=box, area=0, iscrowd=0, segmentation=[polygon] if polygon else [])
            annotations.append(record)
    categories = [dict(id=10 + number, name=name, supercategory='things') for number, name in enumerate(classes)]
    return dict(images=images, annotations=annotations, categories=categories)


def write_coco(root, splits, size=(64, 48)):
    for split, images in splits.items():
        write_images(root / 'images' / split, images, size)
        write_json(root / f'annotations/instances_{split}2017.json', coco_content(images, size=size))


def write_roboflow_coco(root, splits):
    for split, images in splits.items():
        folder = root / 'images' / dict(train='train', val='valid')[split]
        write_images(folder, images)
        content = coco_content(images)
        for category in content['categories']:
            category['supercategory'] = 'animals'
        content['categories'].insert(0, dict(id=0, name='animals', supercategory='none'))
        write_json(folder / '_annotations.coco.json', content)


def voc_xml(name, objects, size=(64, 48)):
    things = ''.join(
        f'<object><name>{kind}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult><bndbox>'
        f'<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>'
        for kind, (x, y, w, h), _ in objects
    )
    return (
        f'<annotation><folder>f</folder><filename>{name}</filename><source><database>Unknown</database></source><size>'
        f'<width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size><segmented>0</segmented>{things}'
        '</annotation>'
    )


def write_voc(root, splits, size=(64, 48)):
    """As the challenge's folders; images in images/train and so on, so that their names are as elsewhere."""
    for folder in ('Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    for split, images in splits.items():
        write_images(root / 'images' / split, images, size)
        for name, objects in images.items():
            (root / 'Annotations' / f'{name[:-4]}.xml').write_text(voc_xml(name, objects, size))
        (root / f'ImageSets/Main/{split}.txt').write_text(''.join(f'{name[:-4]}\n' for name in images))


def write_voc_beside(root, splits):
    """Empty images have no XML file, as LabelImg leaves them."""
    for split, images in splits.items():
        write_images(root / 'images' / split, images)
        for name, objects in images.items():
            if objects:
                (root / 'images' / split / f'{name[:-4]}.xml').write_text(voc_xml(name, objects))


def yolo_line(kind, box, polygon, size=(64, 48)):
    (x, y, w, h), (width, height) = box, size
    if polygon:
        numbers = [value / size[place % 2] for place, value in enumerate(polygon)]
    else:
        numbers = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
    return ' '.join([str(CLASSES.index(kind)), *(f'{number:.6f}' for number in numbers)])


def write_yolo(root, splits, yaml=None, size=(64, 48)):
    for split, images in splits.items():
        write_images(root / 'images' / split, images, size)
        labels = root / 'labels' / split
        labels.mkdir(parents=True)
        for name, objects in images.items():
            if objects:
                lines = [yolo_line(*obj, size) for obj in objects]
                (labels / f'{name[:-4]}.txt').write_text('\n'.join(lines) + '\n')
    folders = ''.join(f'{split}: images/{split}\n' for split in splits)
    (root / 'data.yaml').write_text(yaml or f'path: .\n{folders}names: {json.dumps(CLASSES)}\n')


def write_yolo_lists(root, splits):
    """Lists of files, names by number, and a path that is right nowhere."""
    write_yolo(root, splits)
    for split, images in splits.items():
        (root / f'{split}.txt').write_text(''.join(f'./images/{split}/{name}\n' for name in images))
    names = ''.join(f'  {number}: {name}\n' for number, name in enumerate(CLASSES))
    lists = ''.join(f'{split}: [{split}.txt]\n' for split in splits)
    (root / 'data.yaml').write_text(f'path: ../datasets/elsewhere\n{lists}names:\n{names}')


def write_roboflow_yolo(root, splits):
    """Paths as Roboflow writes them: wrong from the file's folder, right from a folder in it."""
    folders = ''.join(f'{split}: ../images/{split}\n' for split in splits)
    write_yolo(root, splits, f'{folders}test: ../images/test\nnc: 3\nnames: {CLASSES}\n')


def write_labelme(root, splits, size=(64, 48)):
    for split, images in splits.items():
        write_images(root / 'images' / split, images, size)
        for name, objects in images.items():
            shapes = []
            for kind, (x, y, w, h), polygon in objects:
                points = list(zip(polygon[::2], polygon[1::2])) if polygon else [(x + w, y), (x, y + h)]
                shape_type = 'polygon' if polygon else 'rectangle'
                shapes.append(dict(label=kind, points=points, group_id=None, shape_type=shape_type, flags={}))
            content = dict(version='5.4.1', flags={}, shapes=shapes, imagePath=name, imageData='bm8gcGljdHVyZQ==')
            content |= dict(imageHeight=size[1], imageWidth=size[0])
            if objects:
                write_json(root / 'images' / split / f'{name[:-4]}.json', content)


def via_region(kind, box, polygon):
    shape = dict(zip(('x', 'y', 'width', 'height'), box), name='rect')
    if polygon:
        shape = dict(name='polygon', all_points_x=polygon[::2], all_points_y=polygon[1::2])
    return dict(shape_attributes=shape, region_attributes=dict(kind=kind))


def via_records(images):
    return {
        f'{name}123': dict(filename=name, size=123, regions=[via_region(*obj) for obj in objects], file_attributes={})
        for name, objects in images.items()
    }


def write_via(root, splits, size=(64, 48)):
    """Projects, one for each split."""
    for split, images in splits.items():
        write_images(root / 'images' / split, images, size)
        write_json(root / f'via_{split}.json', dict(_via_settings={}, _via_img_metadata=via_records(images)))


def write_via_export(root, splits):
    """As the balloons: JSON of version 1 among the images, with regions by number."""
    for split, images in splits.items():
        write_images(root / 'images' / split, images)
        records = via_records(images)
        for record in records.values():
            record['regions'] = {str(number): region for number, region in enumerate(record['regions'])}
        write_json(root / 'images' / split / 'via_region_data.json', records)


BOXES = dict(
    coco=write_coco,
    roboflow_coco=write_roboflow_coco,
    voc=write_voc,
    voc_beside=write_voc_beside,
    yolo=write_yolo,
    yolo_lists=write_yolo_lists,
    roboflow_yolo=write_roboflow_yolo,
    labelme=write_labelme,
    via=write_via,
    via_export=write_via_export,
)
"""What writes boxes in a layout; all but Pascal VOC's hold polygons too."""

POLYGONS = {name: write for name, write in BOXES.items() if not name.startswith('voc')}
