"""What is published of a training: the weights with all that predictions need to know, in one file without code."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from mmengine.config import Config
from torch import Tensor

from ..datasets.checks import meta_of_test_set
from ..engine.config import load_config
from ..engine.recorded_config import described_model
from ..engine.runner import build_model
from ..engine.work_dir import config_and_checkpoint
from ..errors import UserError
from ..files import appearing
from ..version import __version__
from ..visualization.palette import palette_of
from ..weights.classes import load_trained
from ..weights.reading import DESCRIPTION, read_meta


@dataclass(frozen=True)
class TrainedRun:
    """A training that is to be published.

    Attributes:
        work_dir: its folder.
        cfg: its config.
        checkpoint: the file of the weights that count, see `trained_checkpoint`.
        done: how far the training had come, by the checkpoint's name: {'epoch': 12} or {'iter': 800}; empty where the
            name does not say it.
        seed: of the training; None where the checkpoint does not say it.
        classes: by label.
        tensors: of the whole model, as tests and predictions load them: averaged weights where there are some.
        description: what is published of the config, see `described_model`.
    """

    work_dir: Path
    cfg: Config
    checkpoint: Path
    done: dict[str, int]
    seed: int | None
    classes: tuple[str, ...]
    tensors: dict[str, Tensor]
    description: dict[str, Any]

    @property
    def is_segmenter(self) -> bool:
        return self.cfg.default_scope == 'mmseg'


def read_run(work_dir: str) -> TrainedRun:
    """Load the model of a training, strictly.

    Raises:
        UserError: there is no training, its weights do not fit its config, or its model is not one that is read from
            the files of strangers.
    """
    if not Path(work_dir).is_dir():
        raise UserError(f'{work_dir} is not a folder: give the work directory of a training')
    config, checkpoint = config_and_checkpoint(work_dir)
    cfg = load_config(config)
    meta = meta_of_test_set(cfg)
    description = described_model(cfg, meta['classes'], palette_of(meta))
    model = build_model(cfg)
    load_trained(model, checkpoint, meta['classes'])
    tensors = {
        # Copies, since layers of several levels share tensors, which the format does not know.
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    # MMEngine's counters in the file of a best checkpoint are one too high.
    name = re.search(r'(epoch|iter)_(\d+)\.pth$', checkpoint)
    done = {name[1]: int(name[2])} if name else {}
    description |= dict(done, fasternet_mm_version=__version__)
    seed = read_meta(Path(checkpoint), checkpoint).get('seed')
    classes = tuple(meta['classes'])
    return TrainedRun(Path(work_dir), cfg, Path(checkpoint), done, seed, classes, tensors, description)


def write_model(run: TrainedRun, path: Path) -> None:
    """Write a model as a file that `Predictor` and `load_weights` take."""
    with appearing(path) as draft:
        # `save_file` would write a file that its owner alone may read.
        draft.write_bytes(safetensors.torch.save(run.tensors, {DESCRIPTION: json.dumps(run.description)}))
