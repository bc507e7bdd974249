"""Models named hf://user/name, from a local server: what is fetched, kept, and told when it cannot be had."""

import hashlib

import pytest
import safetensors.torch
import torch
from huggingface_hub import constants

import fasternet_mm
from fasternet_mm.errors import UserError
from fasternet_mm.models.backbone import FasterNet
from fasternet_mm.weights.hugging_face import pinned
from fasternet_mm.weights.sources import read_checkpoint

SMALL = safetensors.torch.save(dict(weight=torch.arange(3.0)))


def test_a_model_is_named_with_the_commit_that_it_is_of(hub):
    commit = hub.publish('alice/model', SMALL)
    hub.repositories['alice/model'].refs['v1'] = commit
    newer = hub.publish('alice/model', safetensors.torch.save(dict(weight=torch.ones(3))))
    assert pinned('hf://alice/model@v1') == pinned(f'hf://alice/model@{commit}') == f'hf://alice/model@{commit}'
    assert pinned('hf://alice/model') == f'hf://alice/model@{newer}'
    assert pinned('work_dirs/run/epoch_1.pth') == 'work_dirs/run/epoch_1.pth'
    assert read_checkpoint('hf://alice/model@v1')['weight'].tolist() == [0, 1, 2]
    assert read_checkpoint('hf://alice/model')['weight'].tolist() == [1, 1, 1]


def test_a_commit_that_was_fetched_once_is_not_asked_for_again(hub):
    hub.publish('alice/model', SMALL)
    name = pinned('hf://alice/model')
    hub.requests.clear()
    read_checkpoint(name)
    assert hub.requests == []


def test_the_hash_that_a_name_asks_for_is_compared(hub):
    hub.publish('alice/model', SMALL)
    right = hashlib.sha256(SMALL).hexdigest()
    assert pinned(f'hf://alice/model#sha256={right}').endswith(f'#sha256={right}')
    read_checkpoint(f'hf://alice/model#sha256={right}')
    with pytest.raises(UserError, match='has the SHA-256'):
        read_checkpoint(f'hf://alice/model#sha256={"0" * 64}')


@pytest.mark.parametrize('offline', [False, True])
def test_without_a_network_the_cache_is_used_and_one_line_says_so(offline, hub, logged_warnings, monkeypatch):
    commit = hub.publish('alice/model', SMALL)
    pinned('hf://alice/model')
    if offline:
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    else:
        hub.shutdown()
        hub.server_close()
    assert pinned('hf://alice/model') == f'hf://alice/model@{commit}'
    (line,) = logged_warnings()
    assert f'alice/model is taken as it was downloaded, at commit {commit}' in line
    assert line.startswith(f'{hub.endpoint} cannot be reached (')


def test_without_a_network_and_without_the_file_a_sentence_says_so(hub):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(UserError, match=r'cannot be reached \(.+\): connect this machine to it, or name a file'):
        read_checkpoint('hf://alice/model')


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('hf://alice/other', 'alice/other does not exist on http.*, or is private: check the name, or log in with hf'),
        ('hf://alice/model@v9', 'alice/model has no revision v9: give a branch, a tag or a commit'),
        ('hf://alice/gated', r'alice/gated is gated: accept its terms at http://.+/alice/gated, and log in'),
        ('hf://alice/private', 'alice/private does not exist on .*, or is private'),
        ('hf://alice', r'hf://alice is no model on the hub: write hf://user/name or hf://user/name@revision'),
        ('hf://alice/../model', 'is no model on the hub'),
        ('hf://alice/model@..', 'is no model on the hub'),
    ],
)
def test_what_cannot_be_had_is_told_in_a_sentence(name, sentence, hub, monkeypatch):
    hub.publish('alice/model', SMALL)
    hub.publish('alice/gated', SMALL, gated=True)
    hub.publish('alice/private', SMALL, private=True)
    monkeypatch.setenv('HF_TOKEN', 'hf_of_nobody')
    with pytest.raises(UserError, match=sentence) as error:
        read_checkpoint(name)
    assert 'hf_of_nobody' not in str(error.value)
    assert '\n' not in str(error.value)


def test_a_token_that_is_none_is_not_shown(hub, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'hf_secret_é')
    with pytest.raises(UserError, match='has letters that no token has') as error:
        read_checkpoint('hf://alice/model')
    assert 'secret' not in str(error.value)


def test_a_private_model_is_read_with_the_token(hub):
    hub.publish('alice/private', SMALL, private=True)
    assert read_checkpoint('hf://alice/private')['weight'].tolist() == [0, 1, 2]


def test_a_hub_that_is_out_of_order_is_told_in_a_sentence(hub):
    hub.status = 500
    with pytest.raises(UserError, match='answers with status 500 for alice/model: try again later'):
        read_checkpoint('hf://alice/model')


def test_a_pickle_is_never_fetched(hub):
    hub.publish('alice/model', b'\x80\x02cos\nsystem\n.', file='pytorch_model.bin')
    with pytest.raises(UserError, match=r'alice/model has no model\.safetensors, the only file that is read'):
        read_checkpoint('hf://alice/model')
    assert not [request for request in hub.requests if 'pytorch_model' in request]


def test_a_pickle_under_the_name_of_another_format_is_refused(hub, tmp_path, monkeypatch):
    from malicious import Payload

    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict=Payload()), tmp_path / 'evil')
    hub.publish('alice/model', (tmp_path / 'evil').read_bytes())
    with pytest.raises(UserError, match=r'is refused: its model\.safetensors is of another format, which could hold'):
        read_checkpoint('hf://alice/model')
    assert not (tmp_path / 'executed').exists()


def test_a_file_that_was_damaged_on_the_disk_is_refused(hub, tmp_path):
    hub.publish('alice/model', SMALL)
    pinned('hf://alice/model')
    (blob,) = (path for path in (tmp_path / 'cache').rglob('blobs/*') if path.is_file())
    blob.write_bytes(SMALL[:-1] + b'\x01')
    with pytest.raises(UserError, match=f'{blob} is damaged: delete it, and hf://alice/model is downloaded again'):
        read_checkpoint('hf://alice/model')


def test_a_cache_that_cannot_be_written_is_named(hub, tmp_path):
    hub.publish('alice/model', SMALL)
    (tmp_path / 'cache').write_text('a file')
    with pytest.raises(UserError, match=f'{tmp_path}/cache cannot take the download of alice/model .+: make room'):
        read_checkpoint('hf://alice/model')


def test_a_missing_package_is_named(hub, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"needs the package huggingface_hub: pip install 'fasternet-mm\[hub\]'"):
        read_checkpoint('hf://alice/model')


@pytest.fixture(scope='module')
def classifier():
    """timm's FasterNet-T0, as its repositories on the hub have it."""
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    return timm.create_model('fasternet_t0')


def test_repositories_of_timm_give_a_backbone(hub, classifier):
    hub.publish('timm/fasternet_t0.in1k', safetensors.torch.save(classifier.state_dict()))
    backbone = fasternet_mm.from_pretrained('timm/fasternet_t0.in1k')
    assert isinstance(backbone, FasterNet)
    assert not backbone.training
    weights = fasternet_mm.load_weights(FasterNet('t0', out_indices=(1, 2)), 'hf://timm/fasternet_t0.in1k')
    assert weights.layout == "timm's FasterNet, FasterNet-T0"
    stem = classifier.patch_embed.proj.weight
    assert torch.equal(backbone.patch_embed.proj.weight, stem)


@pytest.mark.parametrize(
    'content', [SMALL, safetensors.torch.save({'backbone.patch_embed.proj.weight': torch.ones(1)})]
)
def test_a_repository_of_something_else_is_refused(hub, content):
    hub.publish('alice/model', content)
    with pytest.raises(UserError, match=r'hf://alice/model@\w{40} holds .*, and does not say its config: give a model'):
        fasternet_mm.from_pretrained('alice/model')
