"""The table of export formats, and everything that must agree with it."""

import subprocess
import sys

import pytest
from mmseg.models import SegDataPreProcessor

from fasternet_mm.deployment.formats import FORMATS, all_suffixes, format_of, formats_with
from fasternet_mm.deployment.graphs import preparation_settings
from fasternet_mm.deployment.runtimes import OPENERS
from fasternet_mm.deployment.writers import WRITERS


def test_each_format_has_a_writer_and_a_runtime():
    assert list(FORMATS) == list(WRITERS) == list(OPENERS)


@pytest.mark.parametrize(
    ('path', 'name'),
    [('a.onnx', 'onnx'), ('b/a.b.xml', 'openvino'), ('a.pt2', 'torch-export'), ('a.torchscript', 'torchscript')],
)
def test_a_file_is_of_the_format_that_its_suffix_says(path, name):
    assert format_of(path) is FORMATS[name]


@pytest.mark.parametrize('path', ['a.pth', 'onnx', 'work_dirs/mine', 'config.py'])
def test_other_files_are_of_no_format(path):
    assert format_of(path) is None


def test_what_the_command_line_says_of_formats():
    assert all_suffixes() == '.onnx, .xml, .pt2, .torchscript'
    assert formats_with('fp16') == 'onnx, openvino'
    assert formats_with('int8') == formats_with('bf16') == 'openvino'
    assert formats_with('is_program') == 'torch-export, torchscript'


def test_a_format_names_all_files_that_are_written():
    assert [str(path) for path in FORMATS['openvino'].files('a/net.xml')] == ['a/net.xml', 'a/net.bin']
    assert [str(path) for path in FORMATS['onnx'].files('net.onnx')] == ['net.onnx']


def test_the_docs_have_the_same_table(root):
    lines = (root / 'docs/deployment.md').read_text().splitlines()
    rows = [line.split(' | ') for line in lines if line.startswith(tuple(f'| `{name}` |' for name in FORMATS))]
    assert [row[:4] for row in rows] == [
        [
            f'| `{export_format.name}`',
            ' and '.join(f'`{path.suffix}`' for path in export_format.files(f'net{export_format.suffix}')),
            export_format.runs_in,
            'one that you trust: `--trust-program` |' if export_format.is_program else "anybody's |",
        ]
        for export_format in FORMATS.values()
    ]


def test_the_table_is_light():
    code = """
import sys
import fasternet_mm.deployment.formats
assert not {'torch', 'mmengine', 'onnx', 'openvino'} & set(sys.modules)
"""
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('bgr_to_rgb', [True, False])
def test_the_order_of_channels_is_read_under_the_names_of_mmsegmentation_and_of_onedl(bgr_to_rgb):
    preprocessor = SegDataPreProcessor(mean=[1, 2, 3], std=[1, 1, 1], bgr_to_rgb=bgr_to_rgb)
    vars(preprocessor).pop('channel_conversion', None)
    preprocessor._channel_conversion = bgr_to_rgb
    assert preparation_settings(preprocessor)['bgr_to_rgb'] is bgr_to_rgb
