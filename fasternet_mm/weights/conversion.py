"""Checkpoints rewritten as plain tensors."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch

from ..errors import UserError
from ..files import appearing
from .checkpoint_layouts import Weights, recognize
from .sources import read_checkpoint


def convert(source: str, out: str) -> Weights:
    """Write the weights of any checkpoint that can be read, by our names and nothing besides, to ``out``.

    Types and bits stay as they are; optimizer state and other things that only training needs are left behind.

    Args:
        source: see `local_file`.
        out: a file ending in .safetensors, or in .pth for PyTorch.

    Raises:
        UserError: the checkpoint cannot be read, or ``out`` has another ending or cannot be written.
    """
    kind = Path(out).suffix
    if kind not in ('.safetensors', '.pth'):
        raise UserError(f'{out}: the name of the new file must end in .safetensors, or in .pth for PyTorch')
    weights = recognize(read_checkpoint(source, mmap=True), source)
    # Copies, since a view of a bigger tensor would drag all of it along.
    tensors = {
        name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in weights.tensors.items()
    }
    try:
        with appearing(out) as draft:
            if kind == '.safetensors':
                # `save_file` would write a file that its owner alone may read.
                draft.write_bytes(safetensors.torch.save(tensors, dict(format='pt')))
            else:
                torch.save(tensors, draft)
    except OSError as error:
        raise UserError(f'{out} cannot be written ({error.strerror}): name another place') from error
    return weights
