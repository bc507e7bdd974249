"""The documentation site has every page, and shows it as GitHub does. ``make docs`` builds it."""

import re

import yaml
from markdown_pages import FENCE, PAGES, ROOT, prose

import fasternet_mm


class SiteLoader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name functions of Python."""


SiteLoader.add_multi_constructor('tag:yaml.org,2002:python/', lambda loader, suffix, node: None)


def pages_of(nav) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(entry)]


def test_every_page_is_in_the_navigation_of_the_site_once():
    nav = pages_of(yaml.load((ROOT / 'mkdocs.yml').read_text(), SiteLoader)['nav'])
    outside = {'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md'}
    inside = {path.removeprefix('docs/') for path in PAGES if path.startswith(('docs/', 'examples/'))}
    assert sorted(nav) == sorted(inside | outside)


def read_differently(page: str) -> list[str]:
    """Lines that the site's Markdown reads otherwise than GitHub's.

    What belongs to the item of a list is indented by four spaces there, and a list begins after an empty line.
    """
    wrong = [fence[0].splitlines()[0] for fence in FENCE.finditer(page) if len(fence[1]) % 4]
    item = re.compile(r'( *)(?:[-*+]|\d+\.) ')
    before = ''
    for line in prose(page).splitlines():
        begins = item.match(line)
        if begins and (len(begins[1]) % 4 or not (item.match(before) or re.match(r' |#|$', before))):
            wrong.append(line)
        before = line
    return wrong


def test_lists_are_read_alike_on_github_and_on_the_site():
    page = '1. a\n\n   ```xml\n   <a/>\n   ```\n2. b\n  - c\n\n- d\n  more\n- e\n    - f\n\ntext\n- g\n'
    assert read_differently(page) == ['   ```xml', '  - c', '- g']
    on_the_site = [path for path in PAGES if path != 'README.md' and not path.startswith('tests/')]
    wrong = [f'{path}: {line}' for path in on_the_site for line in read_differently(PAGES[path])]
    assert not wrong, '\n'.join(wrong)


def test_the_reference_lists_every_public_name():
    listed = set(re.findall(r'\[`(\w+)`\]', PAGES['docs/reference/index.md']))
    assert listed == set(fasternet_mm.PUBLIC)
