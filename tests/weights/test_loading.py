import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner.checkpoint import _load_checkpoint

from fasternet_mm import FasterNet
from fasternet_mm.errors import UserError
from fasternet_mm.weights import PlainCheckpointHook
from fasternet_mm.weights.loading import load_weights, read_checkpoint, use_safe_loading

TINY = dict(embed_dim=16, depths=(1, 1, 1, 1))


class Payload:
    def __reduce__(self):
        return open, ('executed', 'w')


def test_weights_come_back_as_saved(tmp_path):
    saved, loaded = FasterNet(TINY), FasterNet(TINY)
    torch.save(dict(meta={}, state_dict=saved.state_dict()), tmp_path / 'net.pth')
    load_weights(loaded, str(tmp_path / 'net.pth'))
    for mine, other in zip(saved.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


def test_a_checkpoint_of_another_model_is_refused_with_counts(tmp_path):
    state = FasterNet(TINY).state_dict()
    state['head.weight'] = state.pop('norm6.weight')
    state['norm0.bias'] = torch.zeros(3)
    torch.save(state, tmp_path / 'net.pth')
    net = FasterNet(TINY)
    before = net.norm0.weight.clone()
    with pytest.raises(
        UserError, match=r'1 missing \(norm6.weight.*1 unknown \(head.weight.*1 of another shape \(norm0'
    ):
        load_weights(net, str(tmp_path / 'net.pth'))
    assert torch.equal(net.norm0.weight, before)


@pytest.mark.parametrize('through_mmengine', [False, True])
def test_code_in_a_checkpoint_is_refused_by_name_and_never_runs(tmp_path, monkeypatch, through_mmengine):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, extra=Payload()), 'evil.pth')
    if through_mmengine:
        use_safe_loading()
    with pytest.raises(UserError, match=r'evil.pth is refused: it asks to run .*open'):
        (_load_checkpoint if through_mmengine else read_checkpoint)('evil.pth')
    assert not (tmp_path / 'executed').exists()


def test_config_text_is_left_out_since_mmengine_would_execute_it_on_resume(tmp_path):
    torch.save(dict(meta=dict(epoch=3, cfg='import os', config='import os'), state_dict={}), tmp_path / 'net.pth')
    assert read_checkpoint(str(tmp_path / 'net.pth'))['meta'] == dict(epoch=3)


def test_mmengines_training_history_loads(tmp_path):
    hub = MessageHub.get_instance('history')
    hub.update_scalar('train/loss', torch.tensor(1.5))
    hub.update_scalar('train/lr', 0.1)
    torch.save(dict(message_hub=hub.state_dict(), state_dict={}), tmp_path / 'net.pth')
    scalars = read_checkpoint(str(tmp_path / 'net.pth'))['message_hub']['log_scalars']
    assert scalars['train/loss'].current() == 1.5


def test_getattr_is_allowed_for_a_historys_own_statistics_alone(tmp_path):
    class Reach:
        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    torch.save(dict(state_dict={}, extra=Reach()), tmp_path / 'evil.pth')
    with pytest.raises(UserError, match=r'evil.pth is refused: it asks to run getattr.__init__'):
        read_checkpoint(str(tmp_path / 'evil.pth'))


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', pickle.dumps(3), b'PK\x03\x04 cut short'])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / 'net.pth').write_bytes(content)
    with pytest.raises(UserError, match=r'net.pth (is broken|holds)'):
        read_checkpoint(str(tmp_path / 'net.pth'))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r'gone.pth does not exist'):
        read_checkpoint(str(tmp_path / 'gone.pth'))


def test_our_training_state_is_plain_and_comes_back(tmp_path):
    hub = MessageHub.get_instance('plain')
    for value in (1.5, 2.5):
        hub.update_scalar('train/loss', torch.tensor(value), count=2)
    hub.update_info('best', np.float32(0.5))
    checkpoint = dict(meta=dict(epoch=np.int64(3)), message_hub=hub.state_dict())
    PlainCheckpointHook().before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'net.pth')
    loaded = torch.load(tmp_path / 'net.pth', weights_only=True)
    PlainCheckpointHook().after_load_checkpoint(None, loaded)
    assert loaded['meta'] == dict(epoch=3)
    fresh = MessageHub.get_instance('fresh')
    fresh.load_state_dict(loaded['message_hub'])
    assert fresh.get_info('best') == 0.5
    values, counts = fresh.get_scalar('train/loss').data
    assert values.tolist() == [1.5, 2.5]
    assert counts.tolist() == [2, 2]
