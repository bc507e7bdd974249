"""Open a web page on which a model can be tried on images and short videos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .parsing import add_checkpoint, add_engine, add_model, command_parser, port, predictor_of

if TYPE_CHECKING:
    import numpy as np

EPILOG = """examples:
  fasternet-mm app                            the model of `make demo` or `make demo-fast`, with example images
  fasternet-mm app WORK_DIR                   a model that fasternet-mm train made
  fasternet-mm app CONFIG CHECKPOINT
  fasternet-mm app mask_rcnn_fasternet_s_coco
  fasternet-mm app model.onnx --port 8000     a file that fasternet-mm export wrote

It prints the page's address; Ctrl-C ends it. Uploads stay on this machine, and are deleted at the end at
latest. Only this machine reaches the page, unless --host 0.0.0.0 lets in whoever the network lets through:
the page has no passwords.
"""

DEMOS = 'work_dirs/*_shapes'
"""Where the demos of the Makefile are trained, and `fasternet-mm train` with their configs."""

EXAMPLES = 6
"""Images of the embedded data that the page offers; none of them is in its splits."""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(
        prog,
        'Open a web page: drop an image or a short video, see what a model finds in it, move the threshold, download.',
        EPILOG,
        usage='%(prog)s [options] [WORK_DIR | CONFIG CHECKPOINT | EXPORTED_FILE | NAME]',
    )
    add_model(result, without='; default: the model of a demo that was trained here')
    add_checkpoint(result)
    add_engine(result)
    result.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; default: 127.0.0.1, which this machine alone reaches; 0.0.0.0 is for all',
    )
    result.add_argument('--port', type=port, help='default: the first that is free from 7860 on')
    result.add_argument('--max-megabytes', type=float, default=20, metavar='MB', help='largest upload; default: 20')
    result.add_argument('--max-megapixels', type=float, default=64, metavar='MP', help='largest image; default: 64')
    result.add_argument('--device', help='cuda, cuda:1 or cpu; default: a GPU where there is one')
    return result


def main(args: argparse.Namespace) -> None:
    import threading

    import numpy as np

    from ..extras import require

    require('gradio', 'fasternet-mm app')
    from ..serving.gradio_page import open_page
    from ..serving.uploads import Limits

    limits = Limits(args.max_megabytes, args.max_megapixels)
    source = args.source or _newest_demo()
    predictor = predictor_of(args, source, args.checkpoint)
    examples = _examples(predictor.classes)
    predictor(examples[0] if examples else np.zeros((480, 640, 3), np.uint8))  # the first one takes longer than others
    with open_page(predictor, Path(source).stem, args.host, args.port or None, limits, examples) as address:
        print(f'{address}  (Ctrl-C ends it)', flush=True)
        threading.Event().wait()


def _newest_demo() -> str:
    """The work directory of the demo that was trained last.

    Raises:
        UserError: none was trained here.
    """
    from ..engine.work_dir import checkpoint_of_training
    from ..errors import UserError

    trained = {}
    for folder in Path().glob(DEMOS):
        checkpoint = checkpoint_of_training(str(folder))
        if checkpoint:
            trained[str(folder)] = checkpoint.stat().st_mtime
    if not trained:
        raise UserError(
            'no model is named, and no demo was trained here: name WORK_DIR, CONFIG CHECKPOINT or an exported file, or '
            'train one in a few minutes by make demo-fast or fasternet-mm train shapes/rtmdet_ins_fasternet_t0_shapes'
        )
    return max(trained, key=trained.get)


def _examples(classes: Sequence[str]) -> list[np.ndarray]:
    """Images like those of the embedded data, uint8 ``(H, W, 3)``, RGB, for models that know what is on them."""
    import numpy as np

    from ..datasets import shapes

    if not set(shapes.CLASSES) <= set(classes):
        return []
    return [shapes.draw_image(np.random.default_rng(seed))[0] for seed in range(EXAMPLES)]
