"""fasternet-mm check-data --model, with a model that knows the data and is told what else to say."""

import csv
import json

import numpy as np
import pytest
from own_layouts import CLASSES, made, write_coco

from fasternet_mm.errors import UserError
from fasternet_mm.inference.prediction import Prediction
from fasternet_mm.own_data.label_review import ReviewedLabel, write_review
from fasternet_mm.own_data.layouts.annotated_data import DetectionData
from fasternet_mm.own_data.layouts.recognition import read_own_data
from fasternet_mm.report.suspicious_labels import Suspect

IMAGES = 30
EXTRA = [20, 20, 24, 20]
"""A box, x, y, width, height, that is on no object of the data: all are smaller."""


class KnowingPredictor:
    """Finds every object of the made data, and one more in the first image.

    Its classes come in another order than the data's, and it knows one more.
    """

    is_segmenter = False
    classes = ('nothing', *CLASSES[::-1])

    def __init__(self, source):
        self.objects = {name: objects for images in made(IMAGES, 3).values() for name, objects in images.items()}

    def stream(self, paths, broken=None):
        for path in paths:
            objects = [(kind, box, 0.9) for kind, box, _ in self.objects[path.rpartition('/')[2]]]
            objects += [('nothing', [2, 2, 30, 30], 0.95)]
            if path.endswith('p00000.png'):
                objects.append(('cat', EXTRA, 0.9))
            boxes = np.array([box for _, box, _ in objects], np.float32)
            boxes[:, 2:] += boxes[:, :2]
            yield Prediction(
                image=np.zeros((48, 64, 3), np.uint8),
                source=path,
                classes=self.classes,
                palette=[(0, 0, 0)] * len(self.classes),
                category_ids=[],
                boxes=boxes,
                scores=np.array([score for *_, score in objects], np.float32),
                labels=np.array([self.classes.index(kind) for kind, *_ in objects]),
            )


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Data with three mistakes: a missing label in p00000, a wrong class in p00001, a superfluous label in p00031."""
    monkeypatch.setattr('fasternet_mm.inference.predictor.Predictor', KnowingPredictor)
    splits = made(IMAGES, 3)
    kind, box, polygon = splits['train']['p00001.png'][0]
    splits['train']['p00001.png'][0] = ('bird' if kind != 'bird' else 'cat', box, polygon)
    splits['val']['p00031.png'].append(('cat', EXTRA, None))
    write_coco(tmp_path / 'data', splits)
    return tmp_path / 'data'


def review(command, data, *options):
    return command('check-data', data, '--model', 'work', '--out-dir', data.parent / 'out', *options)


def test_all_labels_are_listed_the_planted_mistakes_first(command, data):
    done = review(command, data)
    assert done.returncode == 0
    with open(data.parent / 'out/suspicious_labels.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    records = json.loads((data.parent / 'out/suspicious_labels.json').read_text())
    assert len(rows) == len(records) == 20 * 2 + 2 * 2 + 2  # every third image is empty; one is missing, one too many
    assert {(row['split'], row['image'].rpartition('/')[2], row['kind']) for row in rows[:3]} == {
        ('train', 'p00000.png', 'missing label'),
        ('train', 'p00001.png', 'wrong class'),
        ('val', 'p00031.png', 'superfluous label'),
    }
    missing = next(record for record in records if record['kind'] == 'missing label')
    assert [missing[key] for key in ('annotation_id', 'label', 'predicted', 'score')] == [None, None, 'cat', 0.9]
    assert [missing[key] for key in ('x', 'y', 'width', 'height')] == EXTRA
    assert float(rows[2]['suspicion']) >= 0.5 > float(rows[3]['suspicion'])
    assert 'suspicious labels (3, from suspicion 0.5 on; 45 labels were judged)' in done.stdout
    assert '(images: 2 of train, 1 of val)' in done.stdout


def test_the_set_to_relabel_reads_back_as_these_images_with_all_their_labels_and_ids(command, data):
    review(command, data)
    before, after = read_own_data(data), read_own_data(data.parent / 'out/relabel')
    assert after.problems == []
    names = {'train': ['images/train/p00000.png', 'images/train/p00001.png'], 'val': ['images/val/p00031.png']}
    for split, kept in names.items():
        assert [image['file_name'] for image in after.splits[split]['images']] == kept
        labels = [
            [
                (a['category_id'], a['bbox'], a.get('segmentation'))
                for a in content['annotations']
                if a['image_id'] in ids
            ]
            for content, ids in (
                (part.splits[split], {i['id'] for i in part.splits[split]['images'] if i['file_name'] in kept})
                for part in (before, after)
            )
        ]
        assert labels[0] == labels[1] != []
    assert (data / names['val'][0]).read_bytes() == (data.parent / 'out/relabel' / names['val'][0]).read_bytes()
    written = json.loads((data.parent / 'out/relabel/annotations/val.json').read_text())
    listed = json.loads((data.parent / 'out/suspicious_labels.json').read_text())
    superfluous = next(record for record in listed if record['kind'] == 'superfluous label')
    (label,) = [a for a in written['annotations'] if a['id'] == superfluous['annotation_id']]
    assert label['bbox'] == EXTRA


def test_corrections_are_never_overwritten(command, data):
    review(command, data)
    corrected = data.parent / 'out/relabel/annotations/train.json'
    corrected.write_text('corrected')
    done = review(command, data)
    assert done.returncode == 2
    assert 'maybe with your corrections: move it away, or name another --out-dir' in done.stderr
    assert corrected.read_text() == 'corrected'


def test_a_model_of_other_classes_is_refused(command, data, monkeypatch):
    monkeypatch.setattr(KnowingPredictor, 'classes', ('bird', 'cat', 'car'))
    done = review(command, data)
    assert done.returncode == 2
    assert "does not know the class 'traffic light' (1 of the 3 of the data; it knows bird, cat, car)" in done.stderr
    assert not (data.parent / 'out/suspicious_labels.json').exists()


def test_labels_of_an_image_that_cannot_be_predicted_are_left_out_and_the_image_is_named(command, data, monkeypatch):
    stream = KnowingPredictor.stream

    def with_one_broken(self, paths, broken):
        broken.append(UserError(f'{paths[0]} is broken'))
        return stream(self, paths[1:])

    monkeypatch.setattr(KnowingPredictor, 'stream', with_one_broken)
    done = review(command, data)
    assert done.returncode == 1
    assert '2 images were left out with their labels: ' in done.stdout
    assert 'p00000.png is broken' in done.stdout
    records = json.loads((data.parent / 'out/suspicious_labels.json').read_text())
    assert {record['image'].rpartition('/')[2] for record in records} == {
        *(f'p{number:05d}.png' for number in range(1, 33) if number % 3 != 2 and number != 30)
    }


def test_names_that_a_spreadsheet_would_compute_are_text_in_the_table(tmp_path):
    data = DetectionData('COCO', tmp_path, {})
    label = dict(id=1, category_id=1, bbox=[1, 2, 3, 4])
    suspect = Suspect('superfluous label', 0.1, 1, label)
    write_review(data, [ReviewedLabel('train', '@a.png', suspect, {1: '=1+1'})], str(tmp_path), 0.5)
    with open(tmp_path / 'suspicious_labels.csv', newline='') as file:
        (row,) = csv.DictReader(file)
    assert [row['image'], row['label'], row['x']] == ["'@a.png", "'=1+1", '1']


def test_a_folder_for_the_results_needs_a_model(command, data):
    done = command('check-data', data, '--out-dir', data.parent / 'out')
    assert done.returncode == 2
    assert '--out-dir is for the suspicious labels: give --model too' in done.stderr
