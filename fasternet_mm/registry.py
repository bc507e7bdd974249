"""The plugin's registries.

They are children of MMEngine's, and their scope is the package's name: MMEngine imports ``fasternet_mm.registry``
when a config says ``type='fasternet_mm.…'``, so no ``custom_imports`` is needed.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

MODELS = Registry('model', scope='fasternet_mm', parent=MMENGINE_MODELS, locations=['fasternet_mm.models'])
DATASETS = Registry(
    'dataset', scope='fasternet_mm', parent=MMENGINE_DATASETS, locations=['fasternet_mm.datasets.dataset_classes']
)
METRICS = Registry(
    'metric', scope='fasternet_mm', parent=MMENGINE_METRICS, locations=['fasternet_mm.evaluation.coco_metric']
)
HOOKS = Registry(
    'hook',
    scope='fasternet_mm',
    parent=MMENGINE_HOOKS,
    locations=[
        'fasternet_mm.engine.checkpoint_hook',
        'fasternet_mm.engine.logits_hook',
        'fasternet_mm.acceleration.optimization',
        'fasternet_mm.inference.label_map_files',
        'fasternet_mm.visualization.drawing',
        'fasternet_mm.weights.training_state',
    ],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    scope='fasternet_mm',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    locations=['fasternet_mm.engine.optimizer'],
)
TASK_UTILS = Registry(
    'task util',
    scope='fasternet_mm',
    parent=MMENGINE_TASK_UTILS,
    locations=['fasternet_mm.models.ignoring_assigner'],
)
WEIGHT_INITIALIZERS = Registry(
    'weight initializer',
    scope='fasternet_mm',
    parent=MMENGINE_WEIGHT_INITIALIZERS,
    locations=['fasternet_mm.weights.pretrained'],
)
