"""CHANGELOG.md is in the form of https://keepachangelog.com/en/1.1.0/, and its entries are short."""

import re
from datetime import date

import pytest
from packaging.version import Version

import fasternet_mm

KINDS = ['Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security']
"""The headings that the form allows in a version."""

LONGEST = 320
"""Characters of an entry: what is longer belongs into the docs."""

Changes = dict[str, list[str]]
"""Entries by kind of change."""


def read(text: str) -> tuple[Changes, dict[str, tuple[date, Changes]]]:
    """What is unreleased, and the date and the changes of each version, in order.

    Raises:
        ValueError: the text is not in the form.
    """
    title, *sections = re.split(r'^## ', text, flags=re.MULTILINE)
    if not title.startswith('# Changelog\n') or not sections or not sections[0].startswith('[Unreleased]\n'):
        raise ValueError('it begins with "# Changelog", some words and "## [Unreleased]"')
    unreleased, *released = sections
    versions = {}
    for section in released:
        head = re.match(r'\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)( \[YANKED\])?\n', section)
        if head is None:
            raise ValueError(f'not "## [1.2.3] - 2026-01-31": {section.splitlines()[0]}')
        versions[head[1]] = date.fromisoformat(head[2]), changes(section)
    numbers, days = [Version(version) for version in versions], [day for day, _ in versions.values()]
    falling = numbers == sorted(set(numbers), reverse=True) and days == sorted(days, reverse=True)
    if len(versions) < len(released) or not falling:
        raise ValueError('versions and dates fall, and none occurs twice')
    if not all(entries for _, entries in versions.values()):
        raise ValueError('a version has no entry')
    return changes(unreleased), versions


def changes(section: str) -> Changes:
    _, *parts = re.split(r'^### ', section, flags=re.MULTILINE)
    found = {}
    for part in parts:
        kind, _, body = part.partition('\n')
        entries = [' '.join(entry.split()) for entry in re.split(r'^- ', body.strip(), flags=re.MULTILINE)]
        if kind not in KINDS or kind in found or entries.pop(0) or not entries:
            raise ValueError(f'not one of {KINDS}, or twice, or without "- " entries: {part[:80]}')
        found[kind] = entries
    return found


@pytest.fixture(scope='module')
def changelog(root) -> tuple[Changes, dict[str, tuple[date, Changes]]]:
    return read((root / 'CHANGELOG.md').read_text())


def test_the_newest_version_is_the_packages_or_changes_wait_for_one(changelog):
    unreleased, versions = changelog
    newest = next(iter(versions), '0.0.0')
    assert Version(newest) <= Version(fasternet_mm.__version__)
    assert unreleased or newest == fasternet_mm.__version__


def test_entries_are_short_sentences_that_occur_once(changelog):
    unreleased, versions = changelog
    sections = [unreleased, *(found for _, found in versions.values())]
    every = [entry for found in sections for entries in found.values() for entry in entries]
    assert len(every) == len(set(every))
    wrong = [entry for entry in every if len(entry) > LONGEST or not entry.endswith('.')]
    assert not wrong, '\n'.join(wrong)


GOOD = '# Changelog\n\nWords.\n\n## [Unreleased]\n\n## [0.2.0] - 2026-02-01\n\n### Added\n\n- One.\n- Two\n  lines.\n'


def test_the_form_is_read():
    assert read(GOOD) == ({}, {'0.2.0': (date(2026, 2, 1), {'Added': ['One.', 'Two lines.']})})


@pytest.mark.parametrize(
    ('right', 'wrong', 'reason'),
    [
        ('## [Unreleased]\n\n', '', 'begins with'),
        ('2026-02-01', 'unreleased', 'not "## '),
        ('2026-02-01', '2026-02-31', 'day'),
        ('[0.2.0] - ', '0.2.0 - ', 'not "## '),
        ('### Added', '### New', 'not one of'),
        ('- One.', 'One.', 'without "- " entries'),
        ('### Added\n\n- One.\n- Two\n  lines.\n', '', 'no entry'),
        ('lines.\n', 'lines.\n\n## [0.3.0] - 2026-01-01\n\n### Fixed\n\n- Three.\n', 'fall'),
        ('lines.\n', 'lines.\n\n## [0.1.0] - 2026-03-01\n\n### Fixed\n\n- Three.\n', 'fall'),
        ('lines.\n', 'lines.\n\n## [0.2.0] - 2026-01-01\n\n### Fixed\n\n- Three.\n', 'fall'),
    ],
)
def test_another_form_is_refused(right, wrong, reason):
    assert right in GOOD
    with pytest.raises(ValueError, match=reason):
        read(GOOD.replace(right, wrong))
