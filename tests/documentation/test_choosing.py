"""docs/choosing-a-model.md: the models, limits and figures that it names are the code's and the measurements'."""

import re

import pytest

from fasternet_mm.engine.device_memory import GIB
from fasternet_mm.engine.packaged_configs import config_names
from fasternet_mm.models.published import MASK_RCNN_AP
from fasternet_mm.own_data.plan.gpu_batch import ROOM
from fasternet_mm.own_data.plan.model_choice import LEAST_MEMORY, UP_TO_IMAGES
from fasternet_mm.own_data.plan.validation_split import TOO_FEW


@pytest.fixture(scope='module')
def page(root):
    return (root / 'docs/choosing-a-model.md').read_text()


def test_the_models_of_the_page_are_packaged(page):
    named = set(re.findall(r'`((?:shapes/)?\w+_fasternet_\w+)`', page))
    assert len(named) > 12
    assert not named - set(config_names())


def test_the_limits_of_the_page_are_the_plans(page):
    t1, t2 = (f'{count:,}' for count in UP_TO_IMAGES.values())
    assert f'T1 for up to {t1} images, T2 for up to {t2}, S for more' in page
    t1, t2, s = (memory // GIB for memory in LEAST_MEMORY.values())
    assert f'T1 where {t1} GiB are free, T2 where {t2} and S where {s}' in page
    assert (ROOM, 'nine tenths of what is free' in page) == (0.9, True)
    assert (TOO_FEW, 'fewer than ten images' in page) == (10, True)


def test_the_accuracies_of_the_page_are_those_published_and_measured(page, root):
    rows = re.findall(r'^\| ([\d.]+)(?:, ([\d.]+))? \| [^|]+ \| `([\w/]+)`.*\| (.+) \|$', page, re.MULTILINE)
    assert len(rows) == 7
    published = {f'mask_rcnn_fasternet_{arch}': ap for arch, ap in MASK_RCNN_AP.items()}
    measurements = (root / 'docs/benchmarks.md').read_text()
    for box, mask, name, source in rows:
        if source == 'published':
            assert (float(box), float(mask)) == published.pop(name)
        else:
            assert all(f'0.{value.replace(".", "")}' in measurements for value in (box, mask) if value)
    assert not published
