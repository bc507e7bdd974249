"""Archives of strangers become verified folders, and bad ones nothing at all."""

import json
import random
import shutil
import stat
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fasternet_mm.datasets import archives
from fasternet_mm.datasets.archives import ADE20K, COCO, prepare
from fasternet_mm.errors import UserError


def with_counts(layout, *counts):
    return replace(layout, splits=tuple(replace(split, count=count) for split, count in zip(layout.splits, counts)))


random_bytes = random.Random(0).randbytes
SMALL_ADE, SMALL_COCO = with_counts(ADE20K, 3, 2), with_counts(COCO, 3, 2)
TOP = 'ADEChallengeData2016'
IMAGE = f'{TOP}/images/training/t1.jpg'
LABELS = f'{TOP}/annotations/training/t1.png'
ADE_FILES = {
    f'{TOP}/{kind}/{split}/{split[0]}{i}.{suffix}': random_bytes(300 + i)
    for split, count in (('training', 3), ('validation', 2))
    for i in range(count)
    for kind, suffix in (('images', 'jpg'), ('annotations', 'png'))
} | {f'{TOP}/objectInfo150.txt': b'Idx Ratio'}


def coco_files(split, count):
    names = [f'{i:012d}.jpg' for i in range(count)]
    listed = dict(images=[dict(file_name=name) for name in names], annotations=[], categories=[])
    contents = {f'{split}/{name}': random_bytes(300) for name in names}
    return contents, {f'annotations/instances_{split}.json': json.dumps(listed).encode()}


TRAIN, TRAIN_LABELS = coco_files('train2017', 3)
VAL, VAL_LABELS = coco_files('val2017', 2)
COCO_ARCHIVES = {
    'train2017.zip': TRAIN,
    'val2017.zip': VAL,
    'annotations_trainval2017.zip': TRAIN_LABELS | VAL_LABELS,
}


def write_zip(path, files, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', method) as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    return path


@pytest.fixture
def ade_zip(tmp_path):
    return write_zip(tmp_path / 'ade.zip', ADE_FILES)


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'data'


@pytest.fixture
def coco_folder(tmp_path):
    folder = tmp_path / 'downloads'
    folder.mkdir()
    for name, files in COCO_ARCHIVES.items():
        write_zip(folder / name, files, zipfile.ZIP_DEFLATED)
    return folder


def written(out):
    """All files but the lock."""
    paths = (path for path in out.rglob('*') if path.is_file() and path.name != '.lock')
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def without(files, *members):
    return {member: content for member, content in files.items() if member not in members}


def test_the_official_counts_and_folders_are_those_of_the_configs():
    assert [(split.images, split.count) for split in (*ADE20K.splits, *COCO.splits)] == [
        ('ADEChallengeData2016/images/training', 20210),
        ('ADEChallengeData2016/images/validation', 2000),
        ('train2017', 118287),
        ('val2017', 5000),
    ]


def test_a_good_archive_is_unpacked_whatever_its_name_and_the_second_call_has_nothing_to_do(ade_zip, out):
    assert prepare(SMALL_ADE, [ade_zip], out) == 11
    assert written(out) == ADE_FILES
    assert prepare(SMALL_ADE, [ade_zip], out) == 0


def test_archives_are_found_in_a_folder(coco_folder, out):
    (coco_folder / 'another.zip').write_bytes(b'not looked at')
    assert prepare(SMALL_COCO, [coco_folder], out) == 7
    assert written(out) == TRAIN | VAL | TRAIN_LABELS | VAL_LABELS


def test_archives_may_come_one_at_a_time_and_the_rest_is_asked_for(coco_folder, out, tmp_path):
    (tmp_path / 'val').mkdir()
    (coco_folder / 'val2017.zip').rename(tmp_path / 'val' / 'val2017.zip')
    with pytest.raises(UserError, match=r'train2017 has 0 of 3 .*download and give train2017.zip \(http:[^ ]*\), anno'):
        prepare(SMALL_COCO, [tmp_path / 'val'], out)
    with pytest.raises(UserError, match=r'\(train2017 has 0 of 3 [^;]*\): download and give train2017.zip \([^ ]*\)$'):
        prepare(SMALL_COCO, [coco_folder / 'annotations_trainval2017.zip'], out)
    assert prepare(SMALL_COCO, [coco_folder / 'train2017.zip', coco_folder / 'train2017.zip'], out) == 3


def test_complete_data_need_no_archive(ade_zip, out):
    prepare(SMALL_ADE, [ade_zip], out)
    ade_zip.unlink()
    (out / '.lock').unlink()
    assert prepare(SMALL_ADE, [], out) == 0
    assert not (out / '.lock').exists()


def test_what_is_there_with_the_right_size_stays_and_the_rest_is_unpacked_again(ade_zip, out):
    prepare(SMALL_ADE, [ade_zip], out)
    kept = bytes(len(ADE_FILES[IMAGE]))
    (out / IMAGE).write_bytes(kept)
    (out / LABELS).write_bytes(b'half')
    (out / f'{TOP}/objectInfo150.txt').unlink()
    (out / f'{LABELS}.part').write_bytes(b'stale' * 999)
    assert prepare(SMALL_ADE, [ade_zip], out) == 2
    assert written(out) == {**ADE_FILES, IMAGE: kept}


@pytest.mark.parametrize('good_reads', range(0, 22, 3))
def test_an_interruption_leaves_only_whole_files_and_the_next_call_goes_on(ade_zip, out, monkeypatch, good_reads):
    def interrupted(source, file):
        nonlocal good_reads
        for size in (100, -1):
            if good_reads == 0:
                raise KeyboardInterrupt
            good_reads -= 1
            file.write(source.read(size))

    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, 'copyfileobj', interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(SMALL_ADE, [ade_zip], out)
    there = written(out)
    assert there.items() <= ADE_FILES.items()
    assert prepare(SMALL_ADE, [ade_zip], out) == len(ADE_FILES) - len(there)
    assert written(out) == ADE_FILES


def test_what_lies_outside_the_expected_folders_is_not_unpacked(out, tmp_path):
    files = {**ADE_FILES, '__MACOSX/._t1.jpg': b'x', 'README': b'x', TOP: b'x'}
    prepare(SMALL_ADE, [write_zip(tmp_path / 'ade.zip', files)], out)
    assert written(out) == ADE_FILES


def member(name, mode=stat.S_IFREG | 0o644, flags=0):
    info = zipfile.ZipInfo('placeholder')
    # The constructor would tidy it.
    info.filename, info.external_attr = name, mode << 16
    info.flag_bits |= flags
    return info


def unsafe_name(name):
    return lambda path: write_zip(path, {**ADE_FILES, member(name): b'x'})


def encrypted(path):
    content = bytearray(write_zip(path, ADE_FILES).read_bytes())
    content[content.rindex(b'PK\1\2') + 8] |= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(write_zip(path, ADE_FILES).read_bytes()[:-400])


REFUSED = {
    'absolute': (unsafe_name('/etc/x'), "member '/etc/x' has a name that is not a plain relative path"),
    'climbing': (unsafe_name(f'{TOP}/../../x'), r"x' has a name"),
    'climbing from outside': (unsafe_name('__MACOSX/../x'), r"x' has a name"),
    'drive': (unsafe_name('C:x'), "member 'C:x' has a name"),
    'share': (unsafe_name('//host/share/x'), "member '//host/share/x' has a name"),
    'backslash': (unsafe_name(f'{TOP}\\x'), r"x' has a name"),
    'new line': (unsafe_name('/etc/\nx'), r"member '/etc/\\nx' has a name"),
    'symlink': (
        lambda path: write_zip(path, {**ADE_FILES, member(f'{TOP}/x', stat.S_IFLNK | 0o777): b'/etc/passwd'}),
        f"member '{TOP}/x' is a link or a device",
    ),
    'method': (lambda path: write_zip(path, ADE_FILES, zipfile.ZIP_LZMA), 'compressed by an unusual method'),
    'encrypted': (encrypted, "objectInfo150.txt' is encrypted"),
    'bomb': (
        lambda path: write_zip(path, {f'{TOP}/x': bytes(9_000_000)}, zipfile.ZIP_DEFLATED),
        'would unpack to 9,000,000, more than 200 times',
    ),
    'cut': (cut, 'is cut short or damaged: download it again'),
    'web page': (lambda path: path.write_text('<html>'), 'is not a zip archive: download it again'),
    'empty': (lambda path: path.write_bytes(b''), 'is not a zip archive: download it again'),
    'missing': (lambda path: None, 'cannot be read .No such file'),
    'another': (
        lambda path: write_zip(path, {'train2017/x.jpg': b'x'}),
        rf'no files under {TOP}/: give archives of ADE20K, {TOP}.zip \(http://data.csail.mit.edu/',
    ),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_a_bad_archive_is_refused_by_name_before_anything_is_written(kind, out, tmp_path, ade_zip):
    make, message = REFUSED[kind]
    path = tmp_path / 'bad.zip'
    make(path)
    with pytest.raises(UserError, match=f'bad.zip .*{message}'):
        prepare(SMALL_ADE, [ade_zip, path], out)
    assert not out.exists()


def test_a_member_with_another_checksum_is_named_and_never_gets_its_name(out, tmp_path):
    path = write_zip(tmp_path / 'ade.zip', ADE_FILES)
    path.write_bytes(path.read_bytes().replace(ADE_FILES[LABELS], bytes(len(ADE_FILES[LABELS]))))
    with pytest.raises(UserError, match=rf"ade.zip is damaged at '{LABELS}' \(Bad CRC-32.*download it again"):
        prepare(SMALL_ADE, [path], out)
    assert written(out).items() < without(ADE_FILES, LABELS).items()
    assert not list(out.rglob('*.part'))


def test_damage_anywhere_in_an_archive_is_the_users_to_mend_and_leaves_no_wrong_file(out, tmp_path):
    path = write_zip(tmp_path / 'ade.zip', ADE_FILES, zipfile.ZIP_DEFLATED)
    good = path.read_bytes()
    refused, kept = 0, 0
    for place in range(0, len(good), 23):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        try:
            prepare(SMALL_ADE, [path], out)
        except UserError:
            refused += 1
        known = ADE_FILES.values()
        assert all(content in known for content in written(out).values()), place
        kept += len(written(out))
        shutil.rmtree(out, ignore_errors=True)
    assert refused > 0.8 * len(good) / 23  # a date, for example, may be any
    assert kept > len(ADE_FILES)  # files before the damage are written


def test_missing_images_are_counted_and_the_first_are_named(ade_zip, out):
    prepare(SMALL_ADE, [ade_zip], out)
    shutil.rmtree(out / TOP / 'images' / 'training')
    (out / TOP / 'images/validation/v1.jpg').unlink()
    with pytest.raises(UserError) as error:
        prepare(SMALL_ADE, [], out)
    assert str(error.value) == (
        f'{out} does not have all of ADE20K ({TOP}/images/training has 0 of 3 images, without t0.jpg, t1.jpg, '
        f't2.jpg; {TOP}/images/validation has 1 of 2 images, without v1.jpg): download and give {TOP}.zip '
        f'(http://data.csail.mit.edu/places/ADEchallenge/{TOP}.zip)'
    )


def test_of_many_missing_images_only_three_are_named(out, tmp_path):
    files = {f'{TOP}/annotations/training/{i:03d}.png': b'x' for i in range(200)}
    with pytest.raises(UserError, match=r'without 000.jpg, 001.jpg, 002.jpg, … \(200 in all\)'):
        prepare(with_counts(ADE20K, 200, 0), [write_zip(tmp_path / 'ade.zip', files)], out)


def test_a_label_map_without_its_image_is_found_though_the_numbers_agree(ade_zip, out):
    prepare(SMALL_ADE, [ade_zip], out)
    (out / LABELS).rename(out / LABELS.replace('t1', 'x'))
    with pytest.raises(UserError, match=r'images/training has 3 of 3 images, without x.jpg; .*without t1.jpg\)'):
        prepare(SMALL_ADE, [], out)


def test_files_that_are_not_of_the_data_set_are_named(ade_zip, out):
    prepare(SMALL_ADE, [ade_zip], out)
    (out / IMAGE.replace('t1', 'mine')).write_bytes(b'x')
    with pytest.raises(UserError, match=r'training has 4 images instead of 3, among them mine.jpg: move away'):
        prepare(SMALL_ADE, [], out)


def test_an_image_that_the_annotations_name_must_be_there(coco_folder, out):
    prepare(SMALL_COCO, [coco_folder], out)
    (out / 'val2017/000000000001.jpg').rename(out / 'val2017/other.jpg')
    with pytest.raises(UserError, match=r'val2017 has 2 of 2 images, without 000000000001.jpg; .*without other.jpg'):
        prepare(SMALL_COCO, [], out)


@pytest.mark.parametrize('content', ['{"images": [', '[1]', '{"images": [1]}', '{"annotations": []}', '[' * 99999])
def test_annotations_that_are_none_are_named(coco_folder, out, content):
    prepare(SMALL_COCO, [coco_folder], out)
    (out / 'annotations/instances_val2017.json').write_text(content)
    with pytest.raises(UserError, match=r'instances_val2017.json is not a COCO annotation file: delete it'):
        prepare(SMALL_COCO, [], out)


def test_a_full_disk_is_found_before_unpacking_and_counts_only_what_is_not_there(ade_zip, out, monkeypatch):
    (out / IMAGE).parent.mkdir(parents=True)
    (out / IMAGE).write_bytes(ADE_FILES[IMAGE])
    size = sum(map(len, without(ADE_FILES, IMAGE).values()))
    monkeypatch.setattr(archives.shutil, 'disk_usage', lambda path: SimpleNamespace(free=size - 1))
    with pytest.raises(UserError, match=r'data needs .*kB .* has .*kB free: make room, or .* --out'):
        prepare(SMALL_ADE, [ade_zip], out)
    assert written(out) == {IMAGE: ADE_FILES[IMAGE]}
    monkeypatch.setattr(archives.shutil, 'disk_usage', lambda path: SimpleNamespace(free=size))
    assert prepare(SMALL_ADE, [ade_zip], out) == 10


def test_a_folder_that_cannot_be_written_is_named(ade_zip, out):
    out.write_bytes(b'a file')
    with pytest.raises(UserError, match=r'data cannot be filled .*--out'):
        prepare(SMALL_ADE, [ade_zip], out)


def test_the_command_says_what_it_did(ade_zip, coco_folder, out, monkeypatch, command):
    monkeypatch.setattr(archives, 'ADE20K', SMALL_ADE)
    monkeypatch.setattr(archives, 'COCO', SMALL_COCO)
    done = command('prepare', 'ade20k', ade_zip, '--out', out)
    assert f'{out} has all of ADE20K, each image with its label map; 11 files' in done.stdout
    assert '; 0 files' in command('prepare', 'ade20k', '--out', out).stdout
    done = command('prepare', 'coco', *coco_folder.iterdir(), '--out', out)
    assert f'{out} has all of COCO 2017, every image that is annotated; 7 files' in done.stdout


@pytest.mark.parametrize(
    ('name', 'archive', 'missing'),
    [
        (
            'ade20k',
            'ade.zip',
            ['training has 3 of 20210', 'validation labels 2 of 2000', f'give {TOP}.zip (ht'],
        ),
        (
            'coco',
            'downloads',
            ['train2017 has 3 of 118287', 'val2017.json labels 2 of 5000', 'val2017.zip (ht'],
        ),
        ('ade20k', None, ['training has 0 of 20210', ADE20K.archives[TOP]]),
        ('coco', None, ['val2017 has 0 of 5000', *COCO.archives.values()]),
        ('coco', 'nowhere.zip', ['nowhere.zip cannot be read (No such file or directory): give a zip archive']),
    ],
)
def test_the_command_names_what_is_missing_in_one_line_and_exits_with_2(
    ade_zip, coco_folder, out, tmp_path, command, name, archive, missing
):
    done = command('prepare', name, *([tmp_path / archive] if archive else []), '--out', out)
    assert done.returncode == 2
    [error] = done.stderr.strip().splitlines()
    assert error.startswith('fasternet-mm prepare: error: ')
    for part in missing:
        assert part in error


def test_help_names_the_archives_and_their_terms(command):
    shown = command('prepare', '--help').stdout
    assert 'non-commercial' in shown
    for address in (*COCO.archives.values(), *ADE20K.archives.values()):
        assert address in shown
