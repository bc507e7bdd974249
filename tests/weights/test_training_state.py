import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub

from fasternet_mm.errors import UserError
from fasternet_mm.weights.training_state import PlainCheckpointHook, check_training_state


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


def test_histories_come_back_from_tensors_that_numpy_cannot_read_where_they_are():
    values, counts = torch.tensor([1.5, 2.5], requires_grad=True), torch.tensor([2, 2])
    checkpoint = dict(message_hub=dict(log_scalars={'train/loss': dict(values=values, counts=counts, max_length=9)}))
    PlainCheckpointHook().after_load_checkpoint(None, checkpoint)
    history = checkpoint['message_hub']['log_scalars']['train/loss']
    assert history.data[0].tolist() == [1.5, 2.5]
    assert history.max_length == 9


COMPLETE = dict(meta=dict(epoch=1, iter=2), optimizer={}, message_hub={}, state_dict={})


def test_a_training_checkpoint_can_be_resumed():
    check_training_state(COMPLETE, 'net.pth')


@pytest.mark.parametrize(
    'change', [dict(meta=None), dict(meta=dict(epoch=1)), dict(optimizer=None), dict(message_hub=3)]
)
def test_weights_alone_are_no_training_to_resume(change):
    with pytest.raises(UserError, match=r'net.pth holds weights but no training to resume.*--start'):
        check_training_state({**COMPLETE, **change}, 'net.pth')
