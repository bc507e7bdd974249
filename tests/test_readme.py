"""The README in two languages has the same commands, figures and links, section by section, and names all rooms."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LANGUAGES = ('README.md', 'README.zh-CN.md')


def sections(name):
    return re.split(r'^## .*$', (ROOT / name).read_text(), flags=re.MULTILINE)


def code_blocks(text):
    """Without comments, which are translated."""
    return [re.sub(r' +#.*', '', block) for block in re.findall(r'^```.*?^```', text, re.MULTILINE | re.DOTALL)]


def code_spans(text):
    return Counter(re.findall(r'`[^`\n]+`', re.sub(r'^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)))


def links(text):
    return Counter(target for target in re.findall(r'\]\(([^)]+)\)', text) if target not in LANGUAGES)


def figures(text):
    """Numbers, but for those in links."""
    return Counter(re.findall(r'\d+(?:[.,]\d+)*', re.sub(r'\]\([^)]+\)', '', text)))


def rows(text):
    return len(re.findall(r'^\|', text, re.MULTILINE))


@pytest.mark.parametrize('part', [code_blocks, code_spans, links, figures, rows], ids=lambda part: part.__name__)
def test_both_languages_have_the_same(part):
    english, chinese = (sections(name) for name in LANGUAGES)
    assert len(english) == len(chinese) > 8
    for number, (one, other) in enumerate(zip(english, chinese)):
        assert part(one) == part(other), f'section {number}: {one[:60].strip()}'


def test_each_language_leads_to_the_other():
    for name, other in (LANGUAGES, LANGUAGES[::-1]):
        assert f']({other})' in sections(name)[0]


@pytest.mark.parametrize('name', LANGUAGES)
def test_files_that_it_links_exist(name):
    targets = [target for target in links((ROOT / name).read_text()) if '://' not in target]
    assert len(targets) > 15
    assert [target for target in targets if not (ROOT / target.partition('#')[0]).exists()] == []


def test_every_room_is_named_in_the_order_of_imports():
    from test_structure import LAYER, PACKAGE

    (built,) = [section for section in sections('README.md') if 'tests/test_structure.py' in section]
    named = re.findall(r'^\| `(\w+)` \|', built, re.MULTILINE)
    assert set(named) == {path.name for path in PACKAGE.iterdir() if (path / '__init__.py').exists()}
    assert [LAYER[room] for room in named] == sorted((LAYER[room] for room in named), reverse=True)
