import json

import pytest

from fasternet_mm.benchmark import metric_cost


@pytest.mark.parametrize('job', ['bbox', 'segm', 'masks'])
def test_the_benchmark_of_evaluation_gives_both_ways_the_same_data(job, tmp_path):
    (tmp_path / 'annotations.json').write_text(json.dumps(metric_cost._annotate(3)))
    ours, theirs = (
        metric_cost._measure(job, name, str(tmp_path / 'annotations.json'), 3, 20) for name in ('ours', 'mmdet')
    )
    assert ours[2] == theirs[2]
    assert job == 'masks' or 0.1 < ours[2][f'{job}_mAP'] < 0.9
    assert min(ours[0], theirs[0]) > 0
