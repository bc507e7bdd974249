import re

import pytest
import yaml

from fasternet_mm.benchmark import compared_models, detectors
from fasternet_mm.benchmark.benchmark_plots import draw
from fasternet_mm.benchmark.compared_models import COMPARED, ComparedModel, KnownAccuracy, model_candidates
from fasternet_mm.benchmark.detectors import DetectorTask
from fasternet_mm.engine.packaged_configs import config_names

SMALL = (
    ComparedModel('rtmdet_fasternet_t0', (64, 96), KnownAccuracy('BCCD', 60.6, 'measured here')),
    ComparedModel('fpn_fasternet_t0', (64, 96)),
)


def test_known_accuracies_are_those_of_the_authors_and_of_the_measurements(root):
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    published = {
        model['Config'].removeprefix('configs/').removesuffix('.py'): result['Metrics']['box AP']
        for model in index['Models']
        for result in model.get('Results', [])
        if 'box AP' in result['Metrics']
    }
    rows = r'^\| `fasternet-mm train (\w+) --data bccd .*?\| (0\.\d+) \|'
    text = (root / 'docs/benchmarks.md').read_text()
    measured = {name: round(100 * float(ap), 1) for name, ap in re.findall(rows, text, re.MULTILINE)}
    known = {'COCO': {}, 'BCCD': {}}
    for model in COMPARED:
        if model.accuracy:
            known[model.accuracy.data][model.config] = model.accuracy.box_ap
    assert [len(of_data) for of_data in known.values()] == [3, 2]
    assert known == {'COCO': published, 'BCCD': measured}


def test_what_is_compared_is_packaged():
    assert {model.config for model in COMPARED} <= set(config_names())
    sizes = {(model.config, model.size) for model in COMPARED}
    assert len(sizes) == len(COMPARED)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(compared_models, 'COMPARED', SMALL)
    yield
    detectors._build.cache_clear()


def test_models_are_timed_drawn_and_tabled(small, command, tmp_path):
    plot = tmp_path / 'models.svg'
    done = command('benchmark', 'models', '--rounds', 1, '--seconds', 0, '--plot', plot)
    assert done.returncode == 0, done.stderr
    lines = [re.split(r' *\| *', line)[1:-1] for line in done.stdout.splitlines() if '64×96' in line]
    assert [line[:3] for line in lines] == [
        ['rtmdet_fasternet_t0, 64×96', '64×96', '3.8 M'],  # docs/model-zoo.md, with COCO's 80 classes
        ['fpn_fasternet_t0, 64×96', '64×96', '6.4 M'],
    ]
    assert [line[-1] for line in lines] == ['BCCD box AP 60.6, measured here', '–']
    assert all(re.fullmatch(r'\d+\.\d ms', line[3]) for line in lines)
    assert '</svg>' in plot.read_text()


def test_a_segmenter_labels_the_whole_image():
    (candidate,) = model_candidates(SMALL[1:], 'cpu')
    (sample,) = candidate.prepare()()
    assert sample.pred_sem_seg.shape == (64, 96)


def test_a_random_detector_finds_as_much_as_is_asked_for(root):
    config = str(root / 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py')
    found = {
        count: len(
            detectors.prepare_detector('eager', DetectorTask(config, 96, 128, random_boxes=count))()[0].pred_instances
        )
        for count in (5, 1000)
    }
    assert 1 <= found[5] <= 5
    assert found[1000] == 100
    detectors._build.cache_clear()


def test_a_model_that_is_not_compared_is_named(command):
    done = command('benchmark', 'models', '--models', 'resnet')
    assert done.returncode == 2
    assert '--models resnet is none of those that are compared: use rtmdet_fasternet_t0, ' in done.stderr


def test_models_stand_over_their_accuracy_or_in_the_row_of_their_method():
    def row(method, variant, parameters, accuracy):
        return dict(method=method, variant=variant, p50=0.1, parameters=parameters, accuracy=accuracy)

    known = dict(data='COCO', box_ap=39.9, source='published')
    rows = [row('mask_rcnn', 'S', 49e6, known), row('rtmdet', 'T0', 3.8e6, None), row('upernet', 'T0', 31e6, None)]
    above, below = draw('models', dict(rows=rows)).axes
    assert (above.get_title('left'), below.get_title('left')) == ('COCO box AP, published', 'accuracy not known')
    assert [text.get_text() for text in above.texts] == ['Mask R-CNN S']
    assert [tick.get_text() for tick in below.get_yticklabels()] == ['RTMDet', 'UPerNet']
    assert above.collections[0].get_offsets().tolist() == [[100, 39.9]]
    areas = [marks.get_sizes()[0] for marks in (*above.collections, *below.collections)]
    assert areas[0] / areas[1] == pytest.approx(49 / 3.8)
