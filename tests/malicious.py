"""Checkpoints that would run code, were they unpickled."""

from collections import OrderedDict

import torch


class Payload:
    """What a malicious file holds: unpickling it would write the file ``executed``."""

    def __reduce__(self):
        return open, ('executed', 'w')


class BuiltLater:
    """The same by another way: state that a harmless object is given after it was made."""

    def __reduce__(self):
        return OrderedDict, (), dict(payload=Payload())


def evil_pickles():
    weights = dict(weight=torch.zeros(2))
    state = {0: dict(exp_avg=Payload())}
    return dict(
        in_the_weights=dict(state_dict=dict(weight=Payload())),
        in_a_state=dict(state_dict=weights, other=BuiltLater()),
        in_the_optimizer=dict(state_dict=weights, optimizer=dict(state=state, param_groups=[])),
        in_the_metadata=dict(meta=dict(epoch=Payload(), iter=0), state_dict=weights),
        in_the_history=dict(state_dict=weights, message_hub=dict(log_scalars=Payload())),
        instead_of_it=Payload(),
    )
