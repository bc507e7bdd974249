"""What MMEngine keeps for the whole process: it belongs to every package there, and is compared before and after."""

import mmengine.registry
import torch
from mmengine.fileio.backends.registry_utils import backends, prefix_to_backends
from mmengine.registry import WEIGHT_INITIALIZERS, Registry
from mmengine.runner import CheckpointLoader, checkpoint


def global_state():
    return dict(
        initializers=dict(WEIGHT_INITIALIZERS.module_dict),
        loader=dict(vars(CheckpointLoader)),
        schemes=dict(CheckpointLoader._schemes),
        functions=[checkpoint.load_checkpoint, checkpoint.load_state_dict, checkpoint.save_checkpoint, torch.load],
        backends=dict(backends),
        prefixes=dict(prefix_to_backends),
    )


def registered_by(package):
    """Names in MMEngine's own registries of what a package defines."""
    registries = [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]
    return [
        name
        for registry in registries
        for name, built in registry.module_dict.items()
        if str(getattr(built, '__module__', '')).startswith(package)
    ]
