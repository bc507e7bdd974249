"""What the Markdown files link to and name exists: files, and headings in them."""

import re

from markdown_pages import PAGES, ROOT, anchors, links, prose


def dead_links(path: str, page: str) -> list[str]:
    """Links of a page of the repository that lead to no file, or to no heading in it."""
    dead = []
    for link in links(page):
        if re.match(r'[\w+.-]+:', link):
            continue
        name, _, anchor = link.partition('#')
        target = ((ROOT / path).parent / name).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            dead.append(f'{path}: {link}: there is no {name}')
        elif anchor and anchor not in anchors(target.read_text() if name else page):
            dead.append(f'{path}: {link}: there is no heading #{anchor}')
    return dead


def test_links_lead_to_files_and_headings_that_exist():
    assert sum(len([*links(page)]) for page in PAGES.values()) > 100
    wrong = [line for path, page in PAGES.items() for line in dead_links(path, page)]
    assert not wrong, '\n'.join(wrong)


def test_a_dead_link_is_found():
    page = '# One `two`, three\n[a](weights.md) [b](weightz.md) ![c](images/none.png) [d](#one-two-three) [e](#one)\n'
    page += '[f](weights.md#where-from) [g](weights.md#where-to) [h](https://example.org/x#y) `[i](j)`\n'
    page += '```\n[k](l)\n```\n'
    assert [line.split(': ')[1] for line in dead_links('docs/new.md', page)] == [
        'weightz.md',
        'images/none.png',
        '#one',
        'weights.md#where-to',
    ]


NEW = ['configs/rtmdet_fasternet_m.py', 'fasternet_mm/own_data/layouts/csv_boxes.py']
"""Files that examples of docs/architecture.md make."""


def missing_files(page: str) -> list[str]:
    """Paths between backticks that begin with a folder of the repository and lead to nothing in it."""
    paths = re.findall(r'`((?:configs|docs|examples|fasternet_mm|tests|tools)/[^`\s]*)`', prose(page))
    return [path for path in paths if not all(any(ROOT.glob(each.rstrip('/'))) for each in spelled_out(path))]


def spelled_out(path: str) -> list[str]:
    """What a shell makes of braces: ``a_{s,m}.py`` is ``a_s.py`` and ``a_m.py``."""
    before, brace, rest = path.partition('{')
    inside, _, after = rest.partition('}')
    return [before + choice + after for choice in inside.split(',')] if brace else [path]


def test_files_that_are_named_exist():
    assert missing_files('`configs/fpn_*.py` `configs/fpn_fasternet_{t0,t1}.py` `tests/` `tools/no.py` `no/no.py`') == [
        'tools/no.py'
    ]
    wrong = [f'{path}: {name}' for path, page in PAGES.items() for name in missing_files(page) if name not in NEW]
    assert not wrong, '\n'.join(wrong)
