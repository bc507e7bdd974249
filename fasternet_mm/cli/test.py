"""Evaluate a trained model on its test set."""

import argparse
from pathlib import Path

from .parsing import add_checkpoint, add_engine, add_model, add_prediction_in_tiles, command_parser, score, tiles_of

EPILOG = """examples:
  fasternet-mm test work_dirs/mask_rcnn_fasternet_s              its config and its best checkpoint, else its newest
  fasternet-mm test mask_rcnn_fasternet_s mask_rcnn_fasternet_s_coco    published weights, on data/coco
  fasternet-mm test CONFIG CHECKPOINT --out results.json         also the detections, in COCO's results format
  fasternet-mm test CONFIG CHECKPOINT --show-dir drawings        also drawings: truth left, prediction right
  fasternet-mm test CONFIG CHECKPOINT --report report.html       also an HTML page that shows what is wrong where
  fasternet-mm test CONFIG CHECKPOINT --tta                      a segmenter on several sizes and flips of each image
  fasternet-mm test WORK_DIR --tile 640 640                      large images in tiles, scored as a whole
  fasternet-mm test CONFIG model.onnx                            what fasternet-mm export wrote, with the same metric
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Evaluate a trained model on the test set of its config.', EPILOG)
    add_model(result)
    add_checkpoint(result)
    add_engine(result)
    result.add_argument(
        '--work-dir',
        metavar='DIR',
        help="folder of the log; default: MODEL where it is a work directory, else work_dirs/ and the config's name",
    )
    result.add_argument(
        '--out',
        metavar='FILE',
        help='write detections to this file, as COCO results; of a segmenter: label PNGs to this folder',
    )
    result.add_argument(
        '--show-dir',
        metavar='DIR',
        help='write drawings to this folder, truth beside prediction, and sheet.png with twelve of them',
    )
    result.add_argument(
        '--report',
        metavar='FILE',
        help='write an HTML page: figures, errors, confusion, best score threshold, worst images',
    )
    result.add_argument('--score-thr', type=score, default=0.3, help='draw detections from this score; default: 0.3')
    result.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation: the mean of several predictions, by the config's tta_pipeline",
    )
    add_prediction_in_tiles(result)
    result.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm'],
        default='none',
        help='as for fasternet-mm train; default: none',
    )
    return result


def main(args: argparse.Namespace) -> None:
    from ..deployment.formats import format_of, runs_in_bfloat16
    from ..devices import tell_unused_gpu
    from ..engine.config import default_work_dir, load_config
    from ..engine.runner import build_runner
    from ..engine.terminal import HeadingHook
    from ..engine.work_dir import config_and_checkpoint
    from ..errors import UserError
    from ..evaluation.table import metric_table
    from ..inference.tiled_testing import use_tiles
    from ..report.runner_report import check_reportable, write_test_report

    tiles = tiles_of(args)
    config, checkpoint = config_and_checkpoint(args.source, args.checkpoint)
    cfg = load_config(config, args.cfg_options)
    tiles = tiles or cfg.get('tile')
    if tiles and args.tta:
        raise UserError('--tta changes whole images, and --tile cuts them: give one of the two')
    cfg.launcher = args.launcher
    trained_in = args.source if Path(args.source).is_dir() else cfg.get('work_dir') or default_work_dir(config)
    cfg.work_dir = args.work_dir or trained_in
    cfg.load_from, cfg.resume = checkpoint, False
    cfg.load_options = dict(allow_mismatch=args.allow_mismatch)
    if format_of(checkpoint):
        from ..deployment.exported_models import use_exported

        bf16 = runs_in_bfloat16(checkpoint, args.dtype)
        use_exported(cfg, checkpoint, bf16=bf16, trust_program=args.trust_program)
    elif not args.no_optimize:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='fasternet_mm.OptimizeHook', dtype=args.dtype)]
    if tiles:
        use_tiles(cfg, **tiles)
    if args.show_dir:
        draw = dict(type='fasternet_mm.DrawPredictionsHook', out_dir=args.show_dir, score_thr=args.score_thr)
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), draw]

    predictions = write_predictions(cfg, args.out) if args.out or args.report else None

    runner = build_runner(cfg, ('test',), augmented=args.tta)
    runner.register_hook(HeadingHook())
    if runner.rank == 0:
        tell_unused_gpu()
    if args.report:
        check_reportable(runner, args.report)
    metrics = runner.test()

    if runner.rank == 0:
        print(metric_table(metrics))
        if args.report:
            write_test_report(runner, predictions, args.report)
        written = dict(predictions=predictions, drawings=args.show_dir, report=args.report, log=runner.log_dir)
        for content, path in written.items():
            if path:
                print(f'{content + ":":13}{path}')


def write_predictions(cfg, out: str | None) -> str:
    """Let what the model predicts be written: to ``out``, or for a report into the work directory."""
    from ..errors import UserError

    evaluator = cfg.test_evaluator
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else evaluator.get('metrics') or [evaluator]
    kinds = [metric.type.split('.')[-1] for metric in metrics]
    if 'IoUMetric' in kinds:
        out = out or str(Path(cfg.work_dir, 'label_maps'))
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='fasternet_mm.WriteLabelMapsHook', out_dir=out)]
        return out
    if metrics == [evaluator] and kinds == ['CocoMetric']:
        evaluator.update(type='fasternet_mm.CocoMetric', results_file=out or str(Path(cfg.work_dir, 'results.json')))
        return evaluator.results_file
    raise UserError(
        '--out and --report need a test_evaluator CocoMetric, or one with an IoUMetric, but the config has '
        + ', '.join(kinds)
    )
