"""From a folder with data of one's own to a complete config, and what is to be said about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..engine.storage import check_writable, mark_output, write_atomically
from ..errors import UserError
from .checking import check_own_data
from .configuring import use_data, use_schedule
from .content import Instances, Kind, LabelMaps, Problem
from .label_maps import write_label_maps
from .layouts import read_own_data
from .pictures import Picture, describe_pictures
from .recipe import Recipe, choose_recipe
from .splitting import ensure_validation
from .start_weights import choose_start
from .summary import problem_list, summary_table

CONFIG = 'config.py'
"""The complete config in a work directory: training, tests and predictions need nothing else."""

SHOWN_PROBLEMS = 3
"""Of each kind, before training."""


@dataclass(frozen=True)
class Plan:
    """What was found in someone's data, and what was decided for training on it.

    Attributes:
        data: with a validation part.
        pictures: of each split.
        problems: that need not be mended.
        split: how the validation part came about, for people.
        recipe: sizes and schedule.
        start: the weights that training starts from, for people.
    """

    data: Instances | LabelMaps
    pictures: dict[str, list[Picture]]
    problems: list[Problem]
    split: str
    recipe: Recipe
    start: str


def use_own_data(
    cfg: Config,
    folder: str,
    seed: int = 0,
    scale: tuple[int, int] | None = None,
    epochs: int | None = None,
    ignored: int | None = None,
    processes: int = 1,
) -> Plan:
    """Read a folder of data, and make a config one for training on it; annotations are written into its ``work_dir``.

    Args:
        cfg: of a detector or segmenter, with ``work_dir`` set; it is changed.
        folder: with the data; see docs/your-own-data.md for what is accepted.
        seed: of the split where the data has no validation part.
        scale: two sides that pictures are resized to fit into. Default: chosen by the data.
        epochs: how often each picture is seen. Default: chosen by their number.
        ignored: a label that is no class, beside 255.
        processes: that train together.

    Raises:
        UserError: the data is not recognised, has mistakes, or is not what the config's model learns from.
    """
    data = read_own_data(folder, 'decode_head' not in cfg.model, ignored)
    if ignored is not None and isinstance(data, Instances):
        raise UserError(f'--ignore-label {ignored} is for label maps, and this data has objects: leave it out')
    problems = check_own_data(data, thorough=False)
    _refuse_severe(folder, problems)
    _check_masks(cfg, folder, data)
    check_writable(cfg.work_dir)
    mark_output(cfg.work_dir)
    written = Path(cfg.work_dir, 'data').absolute()
    if isinstance(data, LabelMaps):
        data = write_label_maps(data, written)
    pictures = {name: describe_pictures(data, name) for name in data.splits}
    split = ensure_validation(data, pictures, seed)
    if isinstance(data, LabelMaps):
        data.class_counts = {name: _counts(data, part) for name, part in pictures.items()}
    recipe = choose_recipe(
        'detection' if isinstance(data, Instances) else 'segmentation',
        pictures['train'],
        cfg.train_dataloader.batch_size,
        processes,
        cfg.optim_wrapper.optimizer.lr,
        cfg.get('auto_scale_lr', {}).get('base_batch_size', cfg.train_dataloader.batch_size),
        scale,
        epochs,
    )
    use_data(cfg, data, recipe, written)
    use_schedule(cfg, recipe)
    return Plan(data, pictures, problems, split, recipe, choose_start(cfg))


def write_config(cfg: Config) -> Path:
    """Write the complete config into its work directory."""
    path = Path(cfg.work_dir, CONFIG)
    write_atomically(path, cfg.pretty_text.encode())
    return path


def _counts(data: LabelMaps, pictures: Sequence[Picture]) -> list[int]:
    found = Counter(label for picture in pictures for label in picture.labels)
    return [found[label] for label in range(len(data.classes))]


def _refuse_severe(folder: str, problems: Sequence[Problem]) -> None:
    severe = [problem for problem in problems if problem.severe]
    if severe:
        shown = '; '.join(map(str, severe[:3]))
        raise UserError(
            f'{folder} has {len(severe)} mistakes ({shown}{"; …" if len(severe) > 3 else ""}): mend them, '
            f'python tools/check_data.py {folder} names all'
        )


def _check_masks(cfg: Config, folder: str, data: Instances | LabelMaps) -> None:
    if isinstance(data, LabelMaps) or data.with_masks or not cfg.model.get('roi_head', {}).get('mask_head'):
        return
    objects = [one for annotations in data.objects.values() for one in annotations]
    bare = sum('segmentation' not in one for one in objects)
    reasons = [str(problem) for problem in data.problems if problem.kind is Kind.BAD_OUTLINE]
    shown = f' ({"; ".join(reasons[:3])}{"; …" if len(reasons) > 3 else ""})' if reasons else ''
    config = Path(cfg.filename)
    boxes_alone = config.with_name(config.name.replace('mask_rcnn', 'faster_rcnn'))
    right = boxes_alone if boxes_alone != config and boxes_alone.is_file() else 'configs/faster_rcnn_fasternet_s.py'
    raise UserError(
        f'{bare} of the {len(objects)} objects in {folder} have a box and no mask{shown}, but {config} learns masks: '
        f'{"mend these outlines, or " if reasons else ""}train {right}, which learns boxes alone'
    )


def plan_text(plan: Plan) -> str:
    """What was found and decided, for the terminal."""
    recipe, data = plan.recipe, plan.data
    size = f'{recipe.scale[0]}x{recipe.scale[1]}: {recipe.scale_reason}'
    length = f'{recipe.epochs} epochs, {recipe.steps:,} steps'
    if recipe.task == 'segmentation':
        size += f'; trained on crops of {recipe.crop}x{recipe.crop}'
    lines = {
        'data': f'{data.root}: {data.layout}',
        'split': plan.split,
        'picture size': size,
        'start': plan.start.replace('\n', '\n' + ' ' * 15),
        'schedule': f'{length} of {recipe.pictures_per_step} pictures, evaluated every {recipe.interval_text}',
        'learning rate': f'{recipe.lr:.2g} after {recipe.warmup} steps of warm-up, then falling along a cosine',
    }
    warnings = [problem_list(plan.problems, SHOWN_PROBLEMS)] if plan.problems else []
    return '\n'.join([summary_table(data), *warnings, *(f'{what + ":":15}{value}' for what, value in lines.items())])
