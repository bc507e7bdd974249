"""What ``fasternet-mm push`` writes and publishes, on a local server."""

import json
import os
import platform
import re
import sys

import pytest
import yaml
from huggingface_hub import ModelCard

FILES = {'.gitattributes', 'model.safetensors', 'README.md'}


@pytest.fixture(autouse=True)
def _without_data(tmp_path, monkeypatch):
    """The data are not at hand, which spares reading them."""
    monkeypatch.chdir(tmp_path)


def front_matter(card):
    return yaml.safe_load(card.split('---\n')[1])


def test_two_files_are_published_in_one_commit_after_saying_where(hub, work_dir, command):
    done = command('push', work_dir, 'alice/model', '--private', '--yes')
    assert done.returncode == 0, done.stderr
    repository = hub.repositories['alice/model']
    oid, files = repository.files('main')
    assert repository.private
    assert len(repository.commits) == 2  # of which the first one is the hub's own
    assert files.keys() == FILES
    assert f'to:      {hub.endpoint}/alice/model, main; new; private: only its owner can read it' in done.stdout
    assert f'published: {hub.endpoint}/alice/model/tree/{oid}' in done.stdout
    assert 'license: not stated' in done.stdout
    assert hub.token not in done.stdout + done.stderr
    assert not [path for path in work_dir.iterdir() if path.name not in ('config.py', 'epoch_1.pth')]


def test_a_branch_is_made_and_the_main_one_stays_as_it_is(hub, work_dir, command):
    before = hub.publish('alice/model', b'of before')
    done = command('push', work_dir, 'hf://alice/model', '--revision', 'v2', '--message', 'The second one', '--yes')
    assert done.returncode == 0, done.stderr
    assert 'alice/model, v2; replaces these files there; public: everybody can read it' in done.stdout
    assert 'fasternet-mm predict hf://alice/model@v2 IMAGES' in done.stdout
    repository = hub.repositories['alice/model']
    assert repository.refs['main'] == before
    assert 'README.md' in repository.files('v2')[1]


@pytest.mark.parametrize('answer', ['', 'n', None])
def test_nothing_is_published_unless_somebody_agrees(answer, hub, work_dir, command, monkeypatch):
    monkeypatch.setattr(sys.stdin, 'isatty', lambda: answer is not None, raising=False)
    monkeypatch.setattr('builtins.input', lambda _: answer)
    done = command('push', work_dir, 'alice/model')
    assert done.returncode == (2 if answer is None else 0)
    assert 'nothing was published' in done.stdout + done.stderr
    assert 'public: everybody can read it' in done.stdout
    assert not hub.repositories
    assert not [request for request in hub.requests if request.startswith(('POST', 'PUT'))]


def test_a_dry_run_writes_the_files_and_asks_nobody(hub, work_dir, command, tmp_path, monkeypatch):
    monkeypatch.delenv('HF_TOKEN')
    done = command('push', work_dir, 'alice/model', '--dry-run', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {'model.safetensors', 'README.md'}
    assert hub.requests == []
    again = command('push', work_dir, 'alice/model', '--dry-run', tmp_path / 'out')
    assert again.returncode == 2
    assert 'is not empty: give a new folder' in again.stderr


@pytest.mark.parametrize(
    ('args', 'sentence'),
    [
        (('alice',), 'alice is no name of a repository: write user/name'),
        (('alice/model@v1',), 'write user/name, and a branch with --revision'),
        (('alice/model', '--private', '--yes'), 'alice/model exists, and everybody can read it: make it private at'),
        (('alice/new', '--license', 'Apache 2'), '--license Apache 2: write the name that the hub has for it'),
        (('alice/new', '--license', 'wrong', '--yes'), 'refuses README.md ('),
        (('alice/private', '--yes'), 'log in with hf auth login'),
    ],
)
def test_what_is_refused_is_told_in_a_sentence(args, sentence, hub, work_dir, command, monkeypatch):
    hub.publish('alice/model', b'of before')
    hub.publish('alice/private', b'of before', private=True)
    if 'alice/private' in args:
        monkeypatch.setenv('HF_TOKEN', 'hf_of_nobody')
    done = command('push', work_dir, *args)
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[-1]
    assert 'hf_of_nobody' not in done.stderr
    assert 'alice/new' not in hub.repositories


def test_somebody_must_be_logged_in(hub, work_dir, command, monkeypatch):
    monkeypatch.delenv('HF_TOKEN')
    done = command('push', work_dir, 'alice/model')
    assert 'nobody is logged in at the Hugging Face hub: log in with hf auth login, or set HF_TOKEN' in done.stderr
    assert hub.requests == []


# What is said


@pytest.fixture
def tested_dir(work_dir):
    """The work directory after a validation in training, and a test of the same checkpoint that came later."""
    scalars = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    scalars.parent.mkdir(parents=True)
    lines = [dict(lr=0.1, epoch=1, iter=100, step=100), {'coco/bbox_mAP': 0.25, 'coco/segm_mAP': 0.125, 'step': 1}]
    scalars.write_text('\n'.join(map(json.dumps, lines)))
    yield work_dir
    for path in sorted(work_dir.glob('2026*/**/*'), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for path in work_dir.glob('2026*'):
        path.rmdir()


def add_test(work_dir, checkpoint='epoch_1.pth', metrics=None, added='', **changes):
    folder = work_dir / '20260102_000000'
    (folder / 'vis_data').mkdir(parents=True)
    config = (work_dir / 'config.py').read_text()
    for old, new in changes.items():
        assert old in config
        config = config.replace(old, new)
    (folder / 'vis_data' / 'config.py').write_text(f'{config}\nload_from = {str(work_dir / checkpoint)!r}\n{added}')
    (folder / '20260102_000000.json').write_text(json.dumps(metrics or {'coco/bbox_mAP': 0.5, 'time': 0.1}))


def card_of(command, work_dir, folder, *args):
    done = command('push', work_dir, 'alice/model', '--dry-run', folder, *args)
    assert done.returncode == 0, done.stderr
    return (folder / 'README.md').read_text()


def figures_in(card):
    (model,) = front_matter(card)['model-index']
    return {metric['name']: metric['value'] for result in model['results'] for metric in result['metrics']}


def test_figures_are_those_of_the_last_test_of_the_same_weights(hub, tested_dir, command, tmp_path):
    card = card_of(command, tested_dir, tmp_path / 'trained')
    assert figures_in(card) == {'box AP': 0.25, 'mask AP': 0.125}
    assert 'Measured by `fasternet-mm train` on the part `val`' in card
    assert 'chosen' not in card
    best = tested_dir / 'best_coco_segm_mAP_epoch_1.pth'
    best.hardlink_to(tested_dir / 'epoch_1.pth')
    card = card_of(command, tested_dir, tmp_path / 'best')
    best.unlink()
    assert figures_in(card) == {'box AP': 0.25, 'mask AP': 0.125}
    assert 'They were chosen for being the best on that part: expect less on new images.' in card
    add_test(tested_dir)
    card = card_of(command, tested_dir, tmp_path / 'tested')
    assert figures_in(card) == {'box AP': 0.5}
    assert 'Measured by `fasternet-mm test WORK_DIR` on the part `val` of the data, of exactly these weights.' in card


@pytest.mark.parametrize(
    'change',
    [
        dict(checkpoint='epoch_2.pth'),
        dict(num_classes='num_classez'),
        dict(val='test'),
        dict(added="custom_hooks = [dict(type='fasternet_mm.TilesHook', tile=(64, 64))]"),
        dict(added="custom_hooks = [dict(type='fasternet_mm.OptimizeHook', dtype='float16')]"),
        dict(added='load_options = dict(allow_mismatch=True)'),
    ],
)
def test_a_test_of_something_else_does_not_count(change, hub, tested_dir, command, tmp_path):
    add_test(tested_dir, **change)
    assert figures_in(card_of(command, tested_dir, tmp_path / 'out')) == {'box AP': 0.25, 'mask AP': 0.125}


def test_the_card_is_as_the_hub_wants_it_and_invents_nothing(hub, work_dir, root, command, tmp_path, monkeypatch):
    card = card_of(command, work_dir, tmp_path / 'unseen')
    assert 'Its images were not counted: they were not at hand' in card
    monkeypatch.chdir(root)
    card = card_of(command, work_dir, tmp_path / 'plain')
    data = front_matter(card)
    assert data['pipeline_tag'] == 'image-segmentation'
    assert data['library_name'] == 'fasternet-mm'
    assert 'license' not in data
    assert 'model-index' not in data
    assert 'Not stated: ask who published the model.' in card
    assert 'Nothing was measured' in card
    assert '| images | 800 | 100 |' in card
    assert ModelCard(card).data.to_dict() == data
    card = card_of(command, work_dir, tmp_path / 'full', '--license', 'mit', '--data-name', '<b>cells</b> | *x*')
    assert front_matter(card)['license'] == 'mit'
    assert r'Name: &lt;b&gt;cells&lt;/b&gt; \| \*x\*.' in card


def test_the_card_of_a_segmenter_has_its_metrics(hub, segmenter_dir, root, command, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    add_test(segmenter_dir, metrics=dict(mIoU=80.05, aAcc=96.55, mAcc=87.45, time=0.1))
    card = card_of(command, segmenter_dir, tmp_path / 'out')
    assert front_matter(card)['tags'] == ['fasternet', 'mmsegmentation', 'semantic-segmentation']
    assert figures_in(card) == {'mIoU': 80.05, 'pixel accuracy': 96.55}
    assert '# UPerNet with ' in card
    assert '| mIoU | 80.050 |' in card
    assert '| images | 800 | 100 |' in card
    assert 'objects of class' not in card


def test_what_the_card_tells_to_do_works(hub, work_dir, root, command, tmp_path):
    assert command('push', work_dir, 'alice/model', '--yes').returncode == 0
    card = hub.repositories['alice/model'].files('main')[1]['README.md'].decode()
    shell, python = re.findall(r'^```\w+\n(.*?)^```', card, re.MULTILINE | re.DOTALL)
    (tmp_path / 'street.jpg').write_bytes((root / 'data/shapes/images/val/0000.png').read_bytes())
    program, *words = shell.splitlines()[1].split()
    assert program == 'fasternet-mm'
    done = command(*[word.replace('images/', 'street.jpg') for word in words])
    assert done.returncode == 0, done.stderr
    names = {}
    exec(python, names)
    assert names['prediction'].classes[0] == 'circle'


def test_nothing_personal_is_published(hub, work_dir, command, tmp_path):
    """No path, no name of the machine or its user, though all are in the work directory."""
    config = work_dir / 'config.py'
    before = config.read_text()
    personal = '/home/alice-7f3/secret.pth', 'host-7f3.example'
    notes = f'load_from = {personal[0]!r}\nmachine = {personal[1]!r}\nwork_dir = {str(work_dir)!r}\n'
    config.write_text(f'{before}\n{notes}')
    try:
        card = card_of(command, work_dir, tmp_path / 'out', '--message', 'x')
    finally:
        config.write_text(before)
    assert '| started from | weights of a file |' in card
    assert 'The license of those weights is not known to fasternet-mm.' in card
    model = (tmp_path / 'out' / 'model.safetensors').read_bytes()
    header = model[8 : 8 + int.from_bytes(model[:8], 'little')]
    user = os.environ.get('USER') or 'alice-7f3'
    for content in (header, card.replace('hf://alice/model', '').encode()):
        for text in (*personal, '7f3', str(work_dir), '/home/', '/tmp/', f'/{user}', platform.node() * 2 or 'none'):
            assert text.encode() not in content, text
