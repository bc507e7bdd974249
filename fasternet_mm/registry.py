"""The plugin's registries.

They are children of MMEngine's, and their scope is the package's name: MMEngine imports ``fasternet_mm.registry``
when a config says ``type='fasternet_mm.…'``, so no ``custom_imports`` is needed.
"""

from importlib import import_module

from mmengine import registry as mmengine
from mmengine.registry import Registry

SCOPE = __package__


class LazyRegistry(Registry):
    """A child of a registry of MMEngine's that imports a class's module when the class is asked for by its name.

    MMEngine's ``locations`` would import every module of a registry: MMDetection and MMSegmentation for the backbone.

    Args:
        parent: MMEngine's registry.
        modules: names of classes, and the modules of this package that register them.
    """

    def __init__(self, parent: Registry, **modules: str) -> None:
        super().__init__(parent.name, scope=SCOPE, parent=parent)
        self.modules = modules

    def get(self, key: str) -> type | None:
        module = self.modules.get(key.removeprefix(f'{SCOPE}.'))
        if module:
            import_module(f'{SCOPE}.{module}')
        return super().get(key)


MODELS = LazyRegistry(
    mmengine.MODELS,
    FasterNet='models',
    FasterNetClassifier='models',
    RPNHead='models.two_stage.rpn_head',
    RTMDetInsSepBNHead='models.single_stage.rtmdet_ins_head',
    SingleRoIExtractor='models.two_stage.roi_extractor',
    StandardRoIHead='models.two_stage.roi_head',
    ExportedDetector='deployment.exported_models',
    ExportedSegmenter='deployment.exported_models',
)
DATASETS = LazyRegistry(
    mmengine.DATASETS,
    ShapesDataset='datasets.dataset_classes',
    ShapesSegDataset='datasets.dataset_classes',
    LabelMapDataset='datasets.dataset_classes',
    SeededDataset='engine.data_order',
    WatchedDataset='engine.bad_samples',
)
METRICS = LazyRegistry(mmengine.METRICS, CocoMetric='evaluation.coco_metric')
HOOKS = LazyRegistry(
    mmengine.HOOKS,
    CheckpointHook='engine.checkpoint_hook',
    EarlyStoppingHook='engine.early_stopping',
    PlainCheckpointHook='weights.training_state',
    BrokenLogitsHook='engine.logits_hook',
    MemoryLayoutHook='engine.memory_layout',
    PipelineSwitchHook='engine.pipeline_switch',
    ProgressHook='engine.training_loops',
    SkippedSamplesHook='engine.bad_samples',
    StopSignalsHook='engine.stop_signals',
    ValidationLossHook='engine.validation_loss',
    OptimizeHook='acceleration.optimization',
    TilesHook='inference.tiled_testing',
    WriteLabelMapsHook='inference.label_map_files',
    DrawPredictionsHook='visualization.sample_drawing',
)
DATA_SAMPLERS = LazyRegistry(mmengine.DATA_SAMPLERS, BatchOrder='engine.data_order')
LOOPS = LazyRegistry(mmengine.LOOPS, EpochLoop='engine.training_loops', IterLoop='engine.training_loops')
OPTIM_WRAPPERS = LazyRegistry(mmengine.OPTIM_WRAPPERS, CpuAmpOptimWrapper='engine.mixed_precision')
OPTIM_WRAPPER_CONSTRUCTORS = LazyRegistry(mmengine.OPTIM_WRAPPER_CONSTRUCTORS, StageDecayConstructor='engine.optimizer')
TASK_UTILS = LazyRegistry(
    mmengine.TASK_UTILS,
    IgnoringAssigner='models.ignoring_assigner',
    CenterIgnoringAssigner='models.ignoring_assigner',
)
VISBACKENDS = LazyRegistry(
    mmengine.VISBACKENDS,
    LocalVisBackend='engine.log_files',
    TensorboardVisBackend='engine.tracker_backends',
    WandbVisBackend='engine.tracker_backends',
    MLflowVisBackend='engine.tracker_backends',
    ClearMLVisBackend='engine.tracker_backends',
)
WEIGHT_INITIALIZERS = LazyRegistry(mmengine.WEIGHT_INITIALIZERS, Pretrained='weights.pretrained')
