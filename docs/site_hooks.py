"""MkDocs' hooks: the site also has the pages of the project's root, and the files that any page links to.

Links go from file to file of the repository, as GitHub needs them; here they become links within the site, where the
files of the root and those of ``docs/`` lie in one folder.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
ROOT_PAGES = 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md'
LINK = re.compile(r'(?<=\]\()(?![\w+.-]+:)([^)\s#]+)')
"""The path of a link to a file, in Markdown."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside of ``docs/``, and what that links to."""
    pages = [ROOT / 'docs' / file.src_uri for file in files.documentation_pages()]
    pages += [ROOT / name for name in ROOT_PAGES]
    seen = {file.src_uri for file in files}
    for page in pages:  # grows
        for path in (page, *links_of(page)):
            if path.is_file() and place(path) not in seen:
                seen.add(place(path))
                files.append(File.generated(config, place(path), abs_src_path=str(path)))
                if path.suffix == '.md':
                    pages.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    path = Path(page.file.abs_src_path)
    folder = os.path.dirname(page.file.src_uri)

    def on_the_site(link: re.Match[str]) -> str:
        return os.path.relpath(place(target(path, link[0])), folder or '.')

    return LINK.sub(on_the_site, markdown)


def links_of(page: Path) -> Iterator[Path]:
    for link in LINK.findall(page.read_text()):
        yield target(page, link)


def target(page: Path, link: str) -> Path:
    return Path(os.path.normpath(page.parent / link))


def place(path: Path) -> str:
    """Where a file of the repository is on the site; the site's first page takes the place of the readme."""
    inside = path.relative_to(ROOT).as_posix().removeprefix('docs/')
    return 'index.md' if inside == 'README.md' else inside


REFERENCE = {
    path.rpartition('.')[2]: path
    for page in (ROOT / 'docs/reference').glob('*.md')
    for path in re.findall(r'^::: (\S+)', page.read_text(), re.MULTILINE)
}
"""What the API reference describes, by name: its place in the package."""


class LinkedNames(griffe.Extension):
    """In docstrings, names between backticks become links where the reference has them."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r'(?<!`)`(\w+)`(?!`)', linked, obj.docstring.value)


def linked(name: re.Match[str]) -> str:
    place = REFERENCE.get(name[1])
    return f'[{name[0]}][{place}]' if place else name[0]
