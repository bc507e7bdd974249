"""A program as users of the package write them. mypy reads it, nothing runs it.

Each line with ``type: ignore`` is a mistake that mypy must find: where it does not, the comment is one too many.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from typing_extensions import assert_type

import fasternet_mm
from fasternet_mm import Prediction, Predictor

predictor = Predictor('work_dirs/mine', device='cpu', tile=(640, 640))
assert_type(predictor('street.jpg'), Prediction)
assert_type(predictor(np.zeros((8, 8, 3), np.uint8)), Prediction)
assert_type(predictor(['street.jpg', Path('house.jpg')]), list[Prediction])
assert_type(predictor.stream(['street.jpg']), Iterator[Prediction])
assert_type(predictor.classes, tuple[str, ...])

prediction = predictor('street.jpg').above(0.5).only('car')
assert_type(prediction.boxes, np.ndarray)
assert_type(prediction.masks, np.ndarray | None)
assert_type(prediction.size, tuple[int, int])
assert_type(prediction.names, list[str])
assert_type(prediction.draw('drawing.png'), np.ndarray)
assert_type(fasternet_mm.Tracker(fps=25)(prediction), Prediction)

maps = fasternet_mm.FasterNet('t0', out_indices=(1, 2, 3))
assert_type(maps.forward(torch.zeros(1, 3, 64, 64)), tuple[torch.Tensor, ...])
fasternet_mm.load_weights(maps, 'fasternet_t0_in1k')
assert_type(fasternet_mm.optimize(maps), fasternet_mm.FasterNet)
assert_type(fasternet_mm.FasterNetClassifier('t0').forward(torch.zeros(1, 3, 64, 64)), torch.Tensor)
fasternet_mm.export('work_dirs/mine', out='model.onnx')
fasternet_mm.CocoMetric('val.json', metric='bbox')
assert_type(fasternet_mm.evaluate('results.json', 'val.json'), dict[str, dict[str, Any]])
assert_type(fasternet_mm.__version__, str)

Predictor('work_dirs/mine', batch_sise=4)  # type: ignore[call-arg]
print(predictor('street.jpg').box)  # type: ignore[attr-defined]
print(fasternet_mm.predictor)  # type: ignore[attr-defined]
fasternet_mm.load_weights('fasternet_t0_in1k')  # type: ignore[call-arg, arg-type]
