from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import HOOKS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

NAN, INF = float('nan'), float('inf')


def sample(name, *broken):
    logits = torch.zeros(3, 4, 5)
    logits.view(-1)[: len(broken)] = torch.tensor(broken)
    return SegDataSample(metainfo=dict(img_path=name), seg_logits=PixelData(data=logits))


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_images_with_logits_that_are_not_finite_are_said_once(mode):
    warnings = []
    runner = SimpleNamespace(logger=SimpleNamespace(warning=warnings.append))
    hook = HOOKS.build(dict(type='fasternet_mm.BrokenLogitsHook'))
    for outputs in ([sample('a.png'), sample('b.png', NAN)], [sample('c.png', INF, -INF), sample('d.png', 3e38, 3e38)]):
        getattr(hook, f'after_{mode}_iter')(runner, 0, outputs=outputs)
    getattr(hook, f'after_{mode}_epoch')(runner, {})
    assert [warning.partition(':')[0] for warning in warnings] == [
        'The logits of 2 images are not finite, first of b.png'
    ]
    getattr(hook, f'after_{mode}_iter')(runner, 0, outputs=[sample('a.png')])
    getattr(hook, f'after_{mode}_epoch')(runner, {})
    assert len(warnings) == 1


def test_detections_have_no_logits_to_look_at():
    hook = HOOKS.build(dict(type='fasternet_mm.BrokenLogitsHook'))
    hook.after_val_iter(None, 0, outputs=[SegDataSample()])
    hook.after_val_epoch(None, {})
