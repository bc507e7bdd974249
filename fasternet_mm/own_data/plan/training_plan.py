"""From a folder with data of one's own to a complete config, and a text about what was decided."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...datasets.checks import learns_masks
from ...engine.config import CONFIG, load_config, write_config
from ...engine.device_memory import Card
from ...engine.packaged_configs import config_names
from ...engine.processes import share_of_batch
from ...engine.terminal import counted
from ...errors import UserError, few
from ...files import DRAFT, LOCK, check_writable, is_output, mark_output, write_atomically
from ...inference.tiles import Tiling
from ..layouts.annotated_data import DetectionData, OwnData, SegmentationData
from ..layouts.label_maps import TABLE, write_label_maps
from ..layouts.problems import Fault, Problem
from ..layouts.recognition import read_own_data
from .class_balance import ClassBalance, balance_classes
from .computing import Computing, use_cpus, use_gpus
from .config_writing import begin_from_scratch, spares_ignored_regions, use_data, use_schedule
from .data_checks import CheckedData, check_own_data, object_sides
from .recipe import MIN_STEPS, MIN_STEPS_ON_GPUS, Recipe, choose_batch, choose_recipe, choose_tile
from .start_weights import choose_start, lacks_weights
from .summary import problem_list, summary_table
from .tile_cutting import cut_into_tiles
from .validation_split import ensure_validation, read_earlier_split

DATA = 'data'
"""The folder in a work directory that has the annotations of each split."""

NAMED_PROBLEMS = 3
"""The number of problems of each kind that are named before training, and of all kinds in an error."""

LOGS = frozenset(('.log', '.out', '.err'))
"""Suffixes of files with what a training prints, which may be in its work directory before it begins."""


@dataclass(frozen=True)
class Plan:
    """The data that someone trains on, and what was decided for it.

    Attributes:
        data: the data, with a validation split.
        problems: the problems that need not be mended.
        split: how the validation split came about, for people.
        recipe: sizes and schedule.
        start: the weights that training starts from, for people.
        batch_reason: why a step has so many images; empty where the config says it.
        computing: what was decided for the device.
        model: the config, and why it is that one, for people.
        time: how long the training will take, for people; empty until it is measured.
        patience: the evaluations without a better one after which training ends; None where it does not.
        balance: which images are seen more often, for people; empty where none are.
        tiles: how images were cut, or that they should be, for people; empty where that would not help.
    """

    data: OwnData
    problems: list[Problem]
    split: str
    recipe: Recipe
    start: str
    batch_reason: str = ''
    computing: Computing = field(default_factory=Computing)
    model: str = ''
    time: str = ''
    patience: int | None = None
    balance: str = ''
    tiles: str = ''


def read_data(folder: str, cfg: Config | None = None, ignored: int | None = None) -> OwnData:
    """Read a folder of data: objects, or label maps.

    Args:
        folder: the folder of the data; see docs/your-own-data.md for what is accepted.
        cfg: of the model that is to learn from them. Default: objects where there are any, else label maps.
        ignored: a label that is not a class, beside 255.

    Raises:
        UserError: the data is not recognized, or ``ignored`` is given for objects.
    """
    data = read_own_data(folder, None if cfg is None else 'decode_head' not in cfg.model, ignored)
    if ignored is not None and isinstance(data, DetectionData):
        raise UserError(f'--ignore-label {ignored} is for label maps, and this data has objects: leave it out')
    return data


def use_own_data(
    cfg: Config,
    data: OwnData,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    epochs: int | None = None,
    processes: int = 1,
    pattern: str | None = None,
    earlier: Path | None = None,
    cards: Sequence[Card] = (),
    batch: int | None = None,
    mixed: bool | None = None,
    workers: int | None = None,
    start: str | None = None,
    allow_mismatch: bool = False,
    patience: int | None = None,
    without: Collection[str] = (),
    tiling: Tiling | None = None,
) -> Plan:
    """Set a config to train on data of one's own; annotations are written into its ``work_dir``.

    Args:
        cfg: of a detector or segmenter, with ``work_dir`` set; it is changed.
        data: as `read_data` gave them.
        seed: the seed of the split, where the data has no validation split.
        size: height and width that images are resized to fit into. Default: the earlier run's, else chosen by the data.
        epochs: how often each image is seen. Default: chosen by their number.
        processes: the number of processes that train together.
        pattern: a regular expression of what images have in common that are never split; see `ensure_validation`.
        earlier: the work directory of the run that is resumed; its split and its size are kept. Default: a new run.
        cards: the GPU of each process. Default: training computes on CPUs.
        batch: images per step, of all processes together. Default: the earlier run's; else on GPUs chosen, on CPUs the
            config's.
        mixed: whether to compute in mixed precision. Default: on GPUs yes, on CPUs that have bfloat16 too.
        workers: processes that prepare images, for each process that trains. Default: on GPUs by the CPUs, on CPUs the
            config's.
        start: what the weights are taken from. Default: the best that can be had here, see `choose_start`.
        allow_mismatch: take of ``start`` what fits.
        patience: the evaluations in a row without a better one after which training ends. Default: it does not.
        without: names of `INGREDIENTS` to leave out. Default: none.
        tiling: how images are cut that are larger than a tile. Default: as in the earlier run, else they are not.

    Raises:
        UserError: the data has mistakes, or is not what the config's model learns from; or ``start`` does not fit.
    """
    reason = 'as you say'
    if size is None and earlier:
        size, reason = _size_of(earlier), 'as the run has it'
    if tiling is None and earlier:
        tiling = _tiling_of(earlier)
    checked = check_own_data(data, size, reason, tiling and tiling.size)
    _refuse_severe(data.root, checked.problems)
    _check_masks(cfg, data)
    check_writable(cfg.work_dir)
    written = Path(cfg.work_dir, DATA).absolute()
    if isinstance(data, SegmentationData):
        data = write_label_maps(data, written)
    before = read_earlier_split(earlier / DATA, data.root) if earlier else None
    split = ensure_validation(data, checked.images, seed, pattern, before)
    tiles = suggest_tiles(data, checked) if tiling is None else ''
    if tiling:
        data, tiles = cut_into_tiles(data, tiling, written)
        cfg.tile = dict(tile=tiling.size, overlap=tiling.overlap)
    from_scratch = _began_from_scratch(earlier) if cfg.get('resume') else lacks_weights(cfg, start)
    per_process, batch_reason = _batch(cfg, data, processes, batch, earlier, bool(cards), from_scratch)
    balance = ClassBalance({}, 0) if 'balance' in without else balance_classes(data)
    recipe = choose_recipe(
        data.task,
        len(data.image_paths['train']),
        per_process,
        processes,
        cfg.optim_wrapper.optimizer.lr,
        cfg.get('auto_scale_lr', {}).get('base_batch_size', cfg.train_dataloader.batch_size),
        checked.size,
        checked.size_reason,
        epochs,
        MIN_STEPS_ON_GPUS if cards else MIN_STEPS,
        balance.repeated,
        from_scratch,
        without,
    )
    use_data(cfg, data, recipe, written)
    use_schedule(cfg, recipe, patience)
    if from_scratch:
        begin_from_scratch(cfg, data)
    computing = use_gpus(cfg, data, recipe, cards, mixed, workers) if cards else use_cpus(cfg, mixed, workers)
    problems = [*checked.problems, *_check_ignored_regions(cfg, data)]
    begun = choose_start(cfg, start, allow_mismatch)
    return Plan(
        data,
        problems,
        split,
        recipe,
        begun,
        batch_reason,
        computing,
        patience=patience,
        balance=str(balance),
        tiles=tiles,
    )


def _batch(
    cfg: Config,
    data: OwnData,
    processes: int,
    batch: int | None,
    earlier: Path | None,
    on_gpus: bool,
    from_scratch: bool,
) -> tuple[int, str]:
    """Images per process and step, and the reason where it is not the config."""
    if batch is not None:
        return share_of_batch(batch, processes), 'as you say'
    before = _batch_of(earlier) if earlier else None
    if before:
        return max(1, before // processes), 'as the run has it'
    normed = from_scratch or 'roi_head' not in cfg.model  # heads of a single stage have batch norms
    if on_gpus or (normed and data.task == 'detection'):
        return choose_batch(data.task, len(data.image_paths['train']), processes, on_gpus)
    return cfg.train_dataloader.batch_size, ''


def earlier_run(work_dir: Path, resumed: str | None) -> Path | None:
    """The work directory whose split a resumed run keeps: the checkpoint's, else its own; or None."""
    folders = [Path(resumed).parent, work_dir] if resumed else [work_dir]
    return next((folder for folder in folders if Path(folder, DATA, 'train.json').is_file()), None)


def begin_draft(draft: Path, work_dir: Path, folder: str) -> None:
    """Copy label maps that were numbered afresh into a draft, so that they need not be written again.

    Raises:
        UserError: the training's files would come among those in ``folder``.
    """
    written, data = (path.resolve() for path in (work_dir / DATA, Path(folder)))
    if written == data or written in data.parents or _holds_data(written.parent, data):
        raise UserError(
            f'{work_dir} has the data {folder} where a training writes files of its own: name another --work-dir'
        )
    if Path(written, TABLE).is_file():
        lists = shutil.ignore_patterns('train.json', 'val.json', 'test.json')
        shutil.copytree(written, draft / DATA, ignore=lists)


def _holds_data(work_dir: Path, data: Path) -> bool:
    """Whether a work directory is the data's folder, or one in it with other files than logs and our tools'."""
    names = [file.name for file in work_dir.iterdir() if not file.name.startswith((DRAFT, LOCK))]
    others = [name for name in names if Path(name).suffix not in LOGS]
    return work_dir == data or (data in work_dir.parents and bool(others) and not is_output(work_dir, names))


def put_in_place(cfg: Config, work_dir: Path) -> Path:
    """Move the files in a config's ``work_dir``, a draft, into ``work_dir``, and write the config there.

    Files there are replaced one by one, the config last, so that all of them can be read at any time.

    Args:
        cfg: names files in the draft; it is changed to name them in ``work_dir``.
        work_dir: the work directory of the training, on the same file system.

    Returns:
        The path of the config.
    """
    mark_output(work_dir)
    old, new = (str(Path(folder).absolute()) + os.sep for folder in (cfg.work_dir, work_dir))
    files = [file for file in Path(old).rglob('*') if file.is_file()]
    Path(new, DATA, TABLE).unlink(missing_ok=True)  # it comes back when the label maps are those that it describes
    for file in sorted(files, key=lambda file: file.suffix == '.json'):
        target = Path(new, file.relative_to(old))
        if file.suffix == '.json':  # lists of label maps have their paths
            before, after = (json.dumps(folder)[1:-1].encode() for folder in (old, new))
            write_atomically(target, file.read_bytes().replace(before, after))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    _replace_start(cfg, old, new)
    cfg.work_dir = str(work_dir)
    complete = copy.deepcopy(cfg)
    if complete.get('resume'):  # another training with this config begins anew
        complete.load_from, complete.resume = None, False
    return write_config(complete)


def _replace_start(node: Any, old: str, new: str) -> None:
    """Replace ``old`` by ``new`` at the beginning of all strings in a config, or in a part of it."""
    items = enumerate(node) if isinstance(node, list) else node.items()
    for key, value in list(items):
        if isinstance(value, str) and value.startswith(old):
            node[key] = new + value.removeprefix(old)
        elif isinstance(value, (Mapping, list)):
            _replace_start(value, old, new)


def _began_from_scratch(work_dir: Path | None) -> bool:
    """Whether an earlier run began with random weights, as its config says."""
    if work_dir is None or not Path(work_dir, CONFIG).is_file():
        return False
    return bool(load_config(str(Path(work_dir, CONFIG))).get('from_scratch'))


def _size_of(work_dir: Path) -> tuple[int, int] | None:
    """Height and width that an earlier run resizes images to fit into; None where it has no config that says it."""
    if not Path(work_dir, CONFIG).is_file():
        return None
    pipeline = load_config(str(Path(work_dir, CONFIG))).test_dataloader.dataset.get('pipeline', [])
    for step in pipeline:
        if isinstance(step.get('scale'), (list, tuple)):
            width, height = step.scale
            return height, width
    return None


def _tiling_of(work_dir: Path) -> Tiling | None:
    """How an earlier run cut images into tiles; None where it did not."""
    if not Path(work_dir, CONFIG).is_file():
        return None
    tile = load_config(str(Path(work_dir, CONFIG))).get('tile')
    return Tiling(tuple(tile.tile), tile.overlap) if tile else None


def suggest_tiles(data: OwnData, checked: CheckedData) -> str:
    """That tiles would show objects much larger, for people; empty where they would not."""
    sizes = [checked.images[path].size for path in data.image_paths['train'] if path in checked.images]
    tile = choose_tile(data.task, sizes, object_sides(data), checked.size)
    if tile is None:
        return ''
    side, seen, larger = tile
    return (
        f'a quarter of the objects are below {seen:.0f} pixels once images are resized: with --tile {side} {side} they '
        f'are {larger:.1f} times as large, and predictions take longer by the number of tiles'
    )


def _batch_of(work_dir: Path) -> int | None:
    """Images per step, of all processes, that an earlier run has; None where it has no config that says it."""
    if not Path(work_dir, CONFIG).is_file():
        return None
    return load_config(str(Path(work_dir, CONFIG))).get('auto_scale_lr', {}).get('base_batch_size')


def _refuse_severe(folder: Path, problems: Sequence[Problem]) -> None:
    severe = [problem for problem in problems if problem.severe]
    if severe:
        raise UserError(
            f'{folder} has {len(severe)} mistake{"s" if len(severe) > 1 else ""} '
            f'({few(severe, NAMED_PROBLEMS, "; ", counted=True)}): mend them, fasternet-mm check-data {folder} lists '
            'all'
        )


def _check_masks(cfg: Config, data: OwnData) -> None:
    if isinstance(data, SegmentationData) or data.with_masks or not learns_masks(cfg):
        return
    objects = [obj for annotations in data.objects.values() for obj in annotations]
    without_mask = sum('segmentation' not in obj for obj in objects)
    reasons = [problem for problem in data.problems if problem.kind is Fault.BAD_OUTLINE]
    causes, advice = '', ''
    if reasons:
        causes, advice = f' ({few(reasons, NAMED_PROBLEMS, "; ")})', 'mend these outlines, or '
    raise UserError(
        f'{without_mask} of the {len(objects)} objects in {data.root} have a box and no mask{causes}, but '
        f'{cfg.filename} learns masks: {advice}train {_config_of_boxes(cfg.filename)}, which learns boxes alone'
    )


def augmentation_text(recipe: Recipe) -> str:
    """How training images vary, for people."""
    kinds = ['mirrored and resized at random']
    if 'color' in recipe.ingredients:
        kinds.append('varied in color')
    if 'mosaic' in recipe.ingredients:
        kinds.append('put together from parts of four')
    text = ', '.join(kinds)
    if recipe.task == 'detection' and len(kinds) > 1:
        text += f'; from epoch {recipe.plain_from + 1} on only mirrored and resized'
    return text


def _config_of_boxes(config: str) -> str:
    """The name of the packaged config of the same method and variant without masks, else of a small detector."""
    method, _, rest = Path(config).stem.partition('_fasternet_')
    boxes = dict(mask_rcnn='faster_rcnn', rtmdet_ins='rtmdet').get(method)
    name = f'{boxes}_fasternet_{rest.partition("_")[0]}'
    return name if name in config_names() else 'rtmdet_fasternet_t0'


def _check_ignored_regions(cfg: Config, data: OwnData) -> list[Problem]:
    """A warning where a model takes crowds and difficult objects for background."""
    count = len(data.ignored_regions['train']) if isinstance(data, DetectionData) else 0
    if not count or spares_ignored_regions(cfg.model):
        return []
    head = cfg.model.get('bbox_head', cfg.model).type
    what = (
        f'the ignored regions of train (crowds or difficult objects, {count} in all) are learned as background, since '
        f'{head} cannot leave them out: where they matter, train RTMDet, RetinaNet, ATSS, GFL, TOOD or Faster R-CNN'
    )
    return [Problem(str(data.root), what, Fault.LEARNED_AS_BACKGROUND)]


def plan_text(plan: Plan) -> str:
    """The data and what was decided for it, for the terminal."""
    recipe, data = plan.recipe, plan.data
    size = '{}x{} (H x W): {}'.format(*recipe.size, recipe.size_reason)
    per_step = counted(recipe.images_per_step, 'image')
    length = f'{counted(recipe.epochs, "epoch")}, {counted(recipe.steps, "step")} of {per_step}'
    if plan.batch_reason:
        length += f' ({plan.batch_reason})'
    if recipe.task == 'segmentation':
        size += f'; trained on crops of {recipe.crop}x{recipe.crop}'
    ending = f'; ended after {plan.patience} evaluations without a better one' if plan.patience else ''
    lines = {
        'data': f'{data.root}: {data.layout}',
        'model': plan.model,
        'split': plan.split,
        'image size': size,
        'tiles': plan.tiles,
        'start': plan.start,
        'schedule': f'{length}, evaluated every {recipe.interval_text}{ending}',
        'learning rate': f'{recipe.lr:.2g} after {recipe.warmup} steps of warm-up, then falling along a cosine',
    }
    lines['images'] = augmentation_text(recipe)
    lines['balance'] = plan.balance
    if 'average' in recipe.ingredients:
        lines['weights'] = (
            f'averaged over about the last {round(1 / recipe.momentum):,} steps: these are evaluated and saved'
        )
    lines |= vars(plan.computing)
    lines['time'] = plan.time
    warnings = [problem_list(plan.problems, NAMED_PROBLEMS)] if plan.problems else []
    rows = [f'{title + ":":15}{value}'.replace('\n', '\n' + ' ' * 15) for title, value in lines.items() if value]
    return '\n'.join([summary_table(data), *warnings, *rows])
