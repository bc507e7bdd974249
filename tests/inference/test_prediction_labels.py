"""A prediction as labels: for LabelMe, YOLO and supervision, and as pre-annotations of a folder of images."""

import json
import sys
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from fasternet_mm.annotation_formats import FORMAT_NAMES
from fasternet_mm.datasets.image_reading import read_image
from fasternet_mm.errors import UserError
from fasternet_mm.evaluation.coco_results import encode_masks
from fasternet_mm.inference import Prediction
from fasternet_mm.inference.output_folder import predict_to_folder
from fasternet_mm.own_data.layouts.recognition import read_own_data

CLASSES = ('cat', 'dog')
BOX = [4, 6, 20.126, 16]


def masks(size):
    """A rectangle; and a rectangle with a hole."""
    pixels = np.zeros((2, *size), bool)
    pixels[0, 6:16, 4:20] = True
    pixels[1, 10:24, 8:30] = True
    pixels[1, 14:18, 12:20] = False
    return pixels


def prediction(size=(32, 40), with_masks=False, **changes):
    fields = dict(
        image=np.full((*size, 3), 99, np.uint8),
        source='photos/a b.jpg',
        classes=CLASSES,
        palette=[(250, 0, 0), (0, 250, 0)],
        category_ids=[17, 18],
        boxes=np.array([BOX, [8, 10, 60, 24]], np.float32),
        scores=np.array([0.9, 0.2], np.float32),
        labels=np.array([0, 1]),
        encoded_masks=encode_masks(masks(size)) if with_masks else None,
    )
    return Prediction(**fields | changes)


def labeled(size=(32, 40), **changes):
    none = dict(boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), labels=np.zeros(0, int))
    label_map = np.zeros(size, np.uint8)
    label_map[6:16, 4:20] = 1
    return prediction(size, **none, label_map=label_map, **changes)


def test_boxes_are_rectangles_of_labelme_and_lines_of_yolo():
    content = prediction().to_labelme()
    assert (content['imagePath'], content['imageHeight'], content['imageWidth']) == ('a b.jpg', 32, 40)
    # In hundredths of a pixel; the second one ends at the image's edge.
    assert [(shape['label'], shape['shape_type'], shape['points']) for shape in content['shapes']] == [
        ('cat', 'rectangle', [[4, 6], [20.13, 16]]),
        ('dog', 'rectangle', [[8, 10], [40, 24]]),
    ]
    assert prediction().to_labelme('../photos/a b.jpg')['imagePath'] == '../photos/a b.jpg'
    assert prediction().above(0.5).to_yolo() == '0 0.301625 0.34375 0.40325 0.3125\n'


def test_masks_are_polygons_and_with_holes_masks_of_labelme_and_one_polygon_of_yolo():
    polygon, mask = prediction(with_masks=True).to_labelme()['shapes']
    assert {tuple(point) for point in polygon['points']} == {(4, 6), (20, 6), (20, 16), (4, 16)}
    assert (mask['shape_type'], mask['points']) == ('mask', [[8, 10], [29, 23]])
    first, second = prediction(with_masks=True).to_yolo().splitlines()
    for line, pixels in zip((first, second), masks((32, 40))):
        points = np.array(line.split()[1:], float) * np.tile([40, 32], len(line.split()) // 2)
        encoded = coco_masks.merge(coco_masks.frPyObjects([points.tolist()], 32, 40))
        assert np.array_equal(coco_masks.decode(encoded) > 0, pixels)


def test_an_empty_mask_leaves_the_box():
    empty = prediction(encoded_masks=encode_masks(np.zeros((2, 32, 40), bool)))
    assert [shape['shape_type'] for shape in empty.to_labelme()['shapes']] == ['rectangle', 'rectangle']


def test_supervision_gets_arrays_and_names(monkeypatch):
    module = ModuleType('supervision')
    module.Detections = lambda **fields: SimpleNamespace(**fields)
    module.__spec__ = SimpleNamespace(origin='supervision.py')
    monkeypatch.setitem(sys.modules, 'supervision', module)
    detections = prediction(with_masks=True).to_supervision()
    assert np.array_equal(detections.xyxy, prediction().boxes)
    assert np.array_equal(detections.mask, masks((32, 40)))
    assert detections.confidence.tolist() == pytest.approx([0.9, 0.2])
    assert detections.class_id.tolist() == [0, 1]
    assert detections.data['class_name'].tolist() == ['cat', 'dog']
    assert prediction().to_supervision().mask is None


def test_supervision_takes_what_it_gets():
    supervision = pytest.importorskip('supervision')
    detections = prediction(with_masks=True).to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert detections[detections.confidence > 0.5].data['class_name'].tolist() == ['cat']
    nothing = prediction(boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0), labels=np.zeros(0, int))
    assert len(nothing.to_supervision()) == 0


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"supervision: pip install 'fasternet-mm\[track\]'"):
        prediction().to_supervision()


@pytest.mark.parametrize('method', ['to_labelme', 'to_yolo', 'to_supervision'])
def test_label_maps_are_refused(method):
    with pytest.raises(UserError, match=rf'{method}\(\) is for objects, but this model labels pixels'):
        getattr(labeled(), method)()


# Pre-annotations


class Stub:
    """In the place of a `Predictor`."""

    classes, palette, category_ids = CLASSES, [(250, 0, 0), (0, 250, 0)], [17, 18]

    def __init__(self, with_masks=False, is_segmenter=False):
        self.with_masks, self.is_segmenter = with_masks, is_segmenter

    def stream(self, images, broken=None):
        for source in images:
            try:
                pixels = read_image(source)
            except UserError as error:
                broken.append(error)
                continue
            size, image = pixels.shape[:2], pixels[..., ::-1]
            if self.is_segmenter:
                yield labeled(size, image=image, source=str(source))
            else:
                yield prediction(size, self.with_masks, image=image, source=str(source))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Images of one name in two folders, with umlauts, turned by EXIF, and of a kind that is not written."""
    monkeypatch.chdir(tmp_path)
    files = ['a/1.jpg', 'b/1.png', 'Häuser am See.png', 'turned.jpg', 'clip.gif']
    for number, file in enumerate(files):
        exif = Image.Exif()
        exif[0x112] = 6 if file == 'turned.jpg' else 1
        (tmp_path / file).parent.mkdir(exist_ok=True)
        size = (36, 50) if file == 'turned.jpg' else (50, 36)
        Image.new('RGB', size, (40 * number, 0, 0)).save(tmp_path / file, exif=exif)
    return files


NAMES = ['1.jpg', '1-2.png', 'Häuser am See.png', 'turned.jpg', 'clip.png']


@pytest.mark.parametrize('annotation_format', FORMAT_NAMES)
def test_what_is_found_is_written_for_labeling_tools_and_read_back(photos, tmp_path, annotation_format, capsys):
    stub = Stub(with_masks=True)
    predict_to_folder(stub, photos, 'out', 0.5, annotation_format=annotation_format)
    assert f'labels:     out/{annotation_format} (' in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / 'out').glob('*.*g')) == sorted(NAMES)  # drawings, as ever
    assert len(json.loads((tmp_path / 'out/results.json').read_text())) == 10
    data = read_own_data(f'out/{annotation_format}')
    assert not data.problems
    assert sorted(path.name for path in data.image_paths['train']) == sorted(NAMES)
    image = next(path for path in data.image_paths['train'] if path.name == 'turned.jpg')
    assert image.read_bytes() == (tmp_path / 'turned.jpg').read_bytes()
    if annotation_format == 'label-maps':
        label_map = cv2.imread(str(data.splits['train'][0][1]), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(label_map == 1, masks((36, 50))[0])
        return
    assert {(image['height'], image['width']) for image in data.splits['train']['images']} == {(36, 50)}
    annotations = data.splits['train']['annotations']
    assert [data.classes[annotation['category_id'] - 1] for annotation in annotations] == ['cat'] * 5
    # Of an outline with another box, YOLO and LabelMe have the outline's.
    expected = [4, 6, 16, 10] if annotation_format in ('yolo', 'labelme') else [4, 6, 16.13, 10]
    assert all(annotation['bbox'] == expected for annotation in annotations)
    if annotation_format != 'voc':
        encoded = coco_masks.merge(coco_masks.frPyObjects(annotations[0]['segmentation'], 36, 50))
        assert np.array_equal(coco_masks.decode(encoded) > 0, masks((36, 50))[0])


def test_coco_keeps_the_ids_of_the_model_and_its_scores(photos, tmp_path):
    predict_to_folder(Stub(), photos[:1], 'out', 0.1, annotation_format='coco')
    content = json.loads((tmp_path / 'out/coco/annotations/instances_train.json').read_text())
    assert content['categories'] == [{'id': 17, 'name': 'cat'}, {'id': 18, 'name': 'dog'}]
    assert [(record['category_id'], record['score']) for record in content['annotations']] == [(17, 0.9), (18, 0.2)]


@pytest.mark.parametrize('annotation_format', ['label-maps', 'coco'])
def test_a_segmenter_writes_label_maps_or_regions(photos, tmp_path, annotation_format):
    predict_to_folder(Stub(is_segmenter=True), photos[:1], 'out', annotation_format=annotation_format)
    data = read_own_data(f'out/{annotation_format}')
    if annotation_format == 'label-maps':
        label_map = cv2.imread(str(data.splits['train'][0][1]), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(label_map, labeled((36, 50)).label_map)
        assert data.classes == ['cat', 'dog']
    else:
        assert [annotation['bbox'] for annotation in data.splits['train']['annotations']][1] == [4, 6, 16, 10]


def test_corrected_labels_are_never_overwritten(photos, tmp_path):
    predict_to_folder(Stub(), photos[:1], 'out', annotation_format='yolo')
    corrected = tmp_path / 'out/yolo/labels/train/1.txt'
    corrected.write_text('1 0.5 0.5 0.1 0.1\n')
    with pytest.raises(UserError, match='out/yolo has something in it, which may be work of yours'):
        predict_to_folder(Stub(), photos[:1], 'out', annotation_format='yolo')
    assert corrected.read_text() == '1 0.5 0.5 0.1 0.1\n'


def test_a_broken_image_costs_the_others_nothing(photos, tmp_path):
    (tmp_path / 'broken.jpg').write_text('no image')
    with pytest.raises(UserError, match=r'1 of 3 images were left out: broken.jpg'):
        predict_to_folder(Stub(), [photos[0], 'broken.jpg', photos[1]], 'out', annotation_format='labelme')
    files = sorted(path.name for path in (tmp_path / 'out/labelme/train').iterdir())
    assert files == ['1-2.json', '1-2.png', '1.jpg', '1.json']


def test_label_maps_of_boxes_are_refused_and_the_detections_written(photos, tmp_path):
    with pytest.raises(UserError, match='none of the 1 objects has an outline'):
        predict_to_folder(Stub(), photos[:1], 'out', 0.5, annotation_format='label-maps')
    assert len(json.loads((tmp_path / 'out/results.json').read_text())) == 2
    assert not (tmp_path / 'out/label-maps').exists()
