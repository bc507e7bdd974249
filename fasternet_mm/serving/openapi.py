"""The server described in OpenAPI (https://spec.openapis.org/oas/v3.1.0), for its page and for writers of clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..version import __version__
from .answers import SCORE_THR
from .uploads import Limits

RLE = {
    'type': 'object',
    'description': "The pixels, in COCO's compressed run-length encoding, as pycocotools.mask.decode takes it.",
    'required': ['size', 'counts'],
    'properties': {
        'size': {
            'description': 'Height and width of the image.',
            'type': 'array',
            'items': {'type': 'integer'},
            'minItems': 2,
            'maxItems': 2,
        },
        'counts': {'type': 'string'},
    },
}

ERROR = {
    'type': 'object',
    'required': ['error'],
    'properties': {'error': {'type': 'string', 'description': 'A sentence: what is wrong, and what to do.'}},
}

Schema = Mapping[str, Any]


def openapi_document(classes: Sequence[str], is_segmenter: bool, limits: Limits, seconds: float) -> dict[str, Any]:
    """The document for a model.

    Args:
        classes: names of the model's classes.
        is_segmenter: whether it labels pixels.
        limits: of images.
        seconds: the time that a request may take to arrive.
    """
    parameters = [
        {
            'name': 'classes',
            'in': 'query',
            'description': 'Only these; several as classes=A&classes=B. Default: all.',
            'schema': {'type': 'array', 'items': {'type': 'string', 'enum': list(classes)}},
        }
    ]
    if not is_segmenter:
        score = {'type': 'number', 'minimum': 0, 'maximum': 1, 'default': SCORE_THR}
        description = f'Objects below this score are left out. Default: {SCORE_THR}.'
        parameters.insert(0, {'name': 'score_thr', 'in': 'query', 'description': description, 'schema': score})
    segmenters = 'the class of each pixel' if is_segmenter else 'the objects in it'
    paths = {
        '/predict': (
            'post',
            f'An image comes, {segmenters} go back as JSON',
            _labels() if is_segmenter else _objects(),
        ),
        '/drawing': ('post', f'An image comes, and goes back as PNG with {segmenters} drawn in', 'image/png'),
    }
    if is_segmenter:
        summary = 'An image comes, a gray PNG goes back whose pixels are the numbers of classes'
        paths['/label-map'] = ('post', summary, 'image/png')
    paths |= {
        '/health': ('get', 'Status 200 while the server answers', _object({'status': {'const': 'ok'}})),
        '/metrics': ('get', 'Counts, times and memory, for Prometheus', 'text/plain'),
    }
    return {
        'openapi': '3.1.0',
        'info': {
            'title': 'fasternet-mm serve',
            'version': __version__,
            'description': f'Images of up to {limits.megabytes:g} MB and {limits.megapixels:g} megapixels: JPEG, PNG, '
            'BMP, TIFF, WebP or still GIF. They are turned as their EXIF says, and all boxes and masks are of the '
            'turned image.',
        },
        'paths': {
            path: {method: _operation(path, summary, answer, parameters, limits, seconds)}
            for path, (method, summary, answer) in paths.items()
        },
    }


def _operation(
    path: str, summary: str, answer: Schema | str, parameters: list[Schema], limits: Limits, seconds: float
) -> Schema:
    content = {answer: {}} if isinstance(answer, str) else {'application/json': {'schema': answer}}
    operation = {
        'operationId': path.strip('/').replace('-', '_'),
        'summary': summary,
        'responses': {'200': {'description': summary, 'content': content}},
    }
    if path in ('/health', '/metrics'):
        return operation
    file = {'type': 'string', 'contentMediaType': 'application/octet-stream'}
    form = _object({'image': file})
    operation['parameters'] = parameters
    operation['requestBody'] = {
        'required': True,
        'description': 'The image: the bytes of its file, or a form with the one file.',
        'content': {'multipart/form-data': {'schema': form}, 'image/*': {}, 'application/octet-stream': {}},
    }
    refusals = {
        '400': 'The image cannot be used, or an option is wrong',
        '408': f'The image took more than {seconds:g} seconds to arrive',
        '413': f'The image has more than {limits.megabytes:g} MB or {limits.megapixels:g} megapixels',
        '500': 'The model failed on the image',
        '503': 'Too many requests wait: come again after the seconds in the header Retry-After',
    }
    error = {'application/json': {'schema': ERROR}}
    operation['responses'] |= {
        status: {'description': description, 'content': error} for status, description in refusals.items()
    }
    return operation


def _object(properties: Mapping[str, Schema], optional: Sequence[str] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {'type': 'object', 'required': required, 'properties': properties}


def _of_class() -> dict[str, Schema]:
    return {
        'class': {'type': 'string'},
        'label': {'type': 'integer', 'description': "The class's number in the model, from 0."},
    }


def _image(**more: Schema) -> Schema:
    return _object({'height': {'type': 'integer'}, 'width': {'type': 'integer'}, **more})


def _objects() -> Schema:
    box = {
        'type': 'array',
        'description': 'Left, top, right and bottom, in pixels of the image.',
        'items': {'type': 'number'},
        'minItems': 4,
        'maxItems': 4,
    }
    item = _object(
        {
            **_of_class(),
            'category_id': {'type': 'integer', 'description': "The class's number in COCO's files."},
            'score': {'type': 'number', 'minimum': 0, 'maximum': 1},
            'box': box,
            'mask': {**RLE, 'description': f'Where the model predicts masks. {RLE["description"]}'},
        },
        optional=['mask'],
    )
    return _image(objects={'type': 'array', 'description': 'By falling score.', 'items': item})


def _labels() -> Schema:
    segment = _object({**_of_class(), 'pixels': {'type': 'integer', 'minimum': 1}, 'mask': RLE})
    return _image(segments={'type': 'array', 'description': 'The classes that are there.', 'items': segment})
