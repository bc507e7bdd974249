import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmengine.fileio import LocalBackend, register_backend

from fasternet_mm.engine.config import load_config
from fasternet_mm.errors import UserError
from fasternet_mm.weights import sources
from fasternet_mm.weights.catalog import CATALOG
from fasternet_mm.weights.sources import local_file, read_checkpoint


@pytest.fixture
def net(tmp_path):
    torch.save(dict(weight=torch.ones(3)), tmp_path / 'net.pth')
    return tmp_path / 'net.pth'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    return tmp_path / 'home' / 'hub' / 'checkpoints'


@pytest.fixture
def server(net):
    handler = partial(SimpleHTTPRequestHandler, directory=net.parent)
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


def test_a_path_is_taken_as_it_is(net):
    with local_file(str(net)) as path:
        assert path == net


def test_a_url_is_downloaded_into_the_hubs_cache(server, net, cache):
    with local_file(server + 'net.pth') as path:
        assert path.parent == cache
        assert path.read_bytes() == net.read_bytes()


def test_a_published_name_is_downloaded_under_the_files_own_name(server, net, cache, monkeypatch):
    net.rename(net.with_name(CATALOG['fasternet_s_in1k'].file))
    monkeypatch.setattr('fasternet_mm.weights.catalog.RELEASE', server)
    assert torch.equal(read_checkpoint('fasternet_s_in1k')['weight'], torch.ones(3))
    assert (cache / 'fasternet_s-epoch.299-val_acc1.81.2840.pth').is_file()


def test_a_file_put_into_the_cache_by_hand_is_found_without_a_network(net, cache):
    cache.mkdir(parents=True)
    net.rename(cache / CATALOG['fasternet_t0_in1k'].file)
    assert torch.equal(read_checkpoint('fasternet_t0_in1k')['weight'], torch.ones(3))


def test_a_damaged_download_is_not_kept(server, net, cache):
    net.write_bytes(net.read_bytes()[:-30])
    with pytest.raises(UserError, match=r'net.pth is cut short or damaged'):
        read_checkpoint(server + 'net.pth')
    assert [path.suffix for path in cache.iterdir()] == ['.lock']


def test_mmengines_names_lead_to_their_urls(server, net, cache, monkeypatch):
    monkeypatch.setitem(sources.MODEL_ZOOS, 'torchvision', lambda: dict(resnet50=server + 'net.pth'))
    assert torch.equal(read_checkpoint('torchvision://resnet50')['weight'], torch.ones(3))
    with pytest.raises(UserError, match=r"torchvision://resnet5 is unknown; did you mean 'resnet50'\?"):
        read_checkpoint('torchvision://resnet5')


def test_any_registered_file_backend_serves(net):
    class ShelfBackend(LocalBackend):
        def _path(self, filepath):
            return str(net.parent / filepath.removeprefix('shelf://'))

        def get_local_path(self, filepath):
            return super().get_local_path(self._path(filepath))

    register_backend('shelf', ShelfBackend, force=True, prefixes='shelf')
    assert torch.equal(read_checkpoint('shelf://net.pth')['weight'], torch.ones(3))


def test_an_unknown_scheme_is_named():
    with pytest.raises(UserError, match=r'nowhere://net.pth cannot be had through MMEngine'):
        read_checkpoint('nowhere://net.pth')


def test_a_hash_that_is_given_must_be_the_files(net, server, cache):
    sha256 = hashlib.sha256(net.read_bytes()).hexdigest()
    for source in (str(net), server + 'net.pth'):
        assert torch.equal(read_checkpoint(f'{source}#sha256={sha256.upper()}')['weight'], torch.ones(3))
        with pytest.raises(UserError, match=f'SHA-256 {sha256}'):
            read_checkpoint(f'{source}#sha256={"0" * 64}')
    with pytest.raises(UserError, match='write 64 hexadecimal digits'):
        read_checkpoint(f'{net}#sha256=12')


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('{folder}/other', r'other does not exist; give a file, a URL, or a published name'),
        ('{folder}/nett.pth', r"nett.pth does not exist; did you mean 'net.pth'\?"),
        ('fasternet_s_in22k', r"fasternet_s_in22k does not exist; did you mean 'fasternet_s_in1k'\?"),
        ('{folder}', r'is a folder: give a file in it'),
    ],
)
def test_what_is_not_there_is_told_with_the_nearest_that_is(net, source, message):
    with pytest.raises(UserError, match=message):
        read_checkpoint(source.format(folder=net.parent))


@pytest.mark.parametrize('name', CATALOG)
def test_what_was_published_belongs_to_a_config_of_that_variant(name):
    published = CATALOG[name]
    cfg = load_config(published.config)
    assert cfg.model.backbone.arch == published.arch
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=f'fasternet_{published.arch}_in1k')
    assert published.file.startswith(name.removesuffix('_in1k').removesuffix('_coco'))
