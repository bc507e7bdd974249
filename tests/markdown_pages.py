"""The project's Markdown, taken apart: pages, blocks of code, headings, links."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent

DOCS = {
    str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / 'README.md', *sorted(ROOT.glob('docs/**/*.md')))
}
"""What teaches people to use the package, by its path in the repository."""

PAGES = DOCS | {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (*sorted(ROOT.glob('*.md')), *sorted(ROOT.glob('examples/**/*.md')), ROOT / 'tests/fixtures/README.md')
}
"""All Markdown files."""

FENCE = re.compile(r'^( *)```([\w-]*).*\n((?:.*\n)*?)\1``` *$', re.MULTILINE)


class Block(NamedTuple):
    """A block of code.

    Attributes:
        line: the number of its first line in the page.
        language: what the fence says, else ''.
        text: the code, without the indentation of a list that it stands in.
    """

    line: int
    language: str
    text: str


def blocks(page: str, *languages: str) -> list[Block]:
    """The blocks of code of a page, of these languages where some are named."""
    found = [
        Block(
            page.count('\n', 0, fence.start(3)) + 1, fence[2], re.sub(f'^{fence[1]}', '', fence[3], flags=re.MULTILINE)
        )
        for fence in FENCE.finditer(page)
    ]
    return [block for block in found if not languages or block.language in languages]


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub('', page)


def links(page: str) -> Iterator[str]:
    """The targets of links and images."""
    text = re.sub(r'`[^`\n]*`', '', prose(page))
    yield from re.findall(r'\]\(<?([^)\s>]+)', text)
    yield from re.findall(r'^\[[^\]]+\]: *(\S+)', text, re.MULTILINE)
    yield from re.findall(r'(?:src|href)="([^"]+)"', text)


def anchors(page: str) -> set[str]:
    """The names that GitHub gives to headings, and those that the page itself gives to places."""
    names, times = set(re.findall(r'(?:id|name)="([^"]+)"', page)), Counter()
    for heading in re.findall(r'^#+ +(.+?) *#*$', prose(page), re.MULTILINE):
        words = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading).lower()
        name = re.sub(r'[^\w\- ]', '', words).replace(' ', '-')
        names.add(f'{name}-{times[name]}' if times[name] else name)
        times[name] += 1
    return names
