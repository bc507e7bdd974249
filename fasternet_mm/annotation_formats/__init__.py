"""Writers of annotation formats: what labeling tools and other trainers load."""

FORMAT_NAMES = ('coco', 'yolo', 'voc', 'labelme', 'label-maps')
"""The formats as commands name them."""
