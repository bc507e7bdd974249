import errno
import hashlib
import json
import multiprocessing
import os
import random
import socket
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.error import HTTPError
from urllib.request import Request

import pytest

from fasternet_mm.download import _SafeRedirects, cache_path, download
from fasternet_mm.errors import UserError

MODULE = sys.modules[download.__module__]
BODY = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(250_000)
STRONG = {'ETag': '"1"'}
WAYS_ON = (
    r'download it on another machine and put it at .*/net.pth, or name a local file; '
    r'or train from random weights with --start scratch$'
)


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        self.close_connection = True
        self.server.asked.append(self.headers)
        answers = self.server.answers
        with suppress(ConnectionError):
            (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *args):
        pass


class Site(ThreadingHTTPServer):
    """Gives the listed answers one after the other, the last one again and again."""

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.answers = []
        self.asked = []
        self.over = Event()
        self.url = f'http://127.0.0.1:{self.server_port}/net.pth'

    def ranges(self):
        return [headers['Range'] for headers in self.asked]


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(MODULE, 'PAUSE', 0)
    with Site() as site:
        Thread(target=site.serve_forever, args=(0.01,), daemon=True).start()
        yield site
        site.over.set()
        site.shutdown()


@pytest.fixture
def target(tmp_path):
    return tmp_path / 'cache' / 'net.pth'


def status(code, headers=None, body=b''):
    def answer(request):
        request.send_response(code)
        for name, value in {'Content-Length': len(body), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def whole(body=BODY, stamp=STRONG, until=None, ranges=True, stall=0):
    """The file, or what is asked of it if it is still the same; cut or stalled at byte `until`."""

    def answer(request):
        known = ranges and request.headers['If-Range'] in stamp.values()
        start = int(request.headers['Range'][len('bytes=') : -1]) if known else 0
        headers = {**stamp, 'Content-Length': len(body) - start}
        if known:
            headers['Content-Range'] = f'bytes {start}-{len(body) - 1}/{len(body)}'
        status(206 if known else 200, headers, body[start:until])(request)
        request.server.over.wait(stall)
        request.wfile.write(body[max(start, until) :] if stall and until else b'')

    return answer


def chunked(body=BODY, ended=True):
    def answer(request):
        status(200, {'Transfer-Encoding': 'chunked'}, b'%x\r\n%b\r\n' % (len(body), body))(request)
        request.wfile.write(b'0\r\n\r\n' if ended else b'')

    return answer


def accept(path):
    assert path.is_file()


def refuse(path):
    raise UserError(f'{path.name} is not a checkpoint')


def left(target):
    return sorted(path.name for path in target.parent.iterdir() if path.suffix != '.lock')


def keep_part(target, url, body=BODY[:100_000], validator='"1"'):
    target.parent.mkdir()
    target.with_name('net.pth.part').write_bytes(body)
    if validator:
        target.with_name('net.pth.part.json').write_text(json.dumps(dict(url=url, validator=validator)))


def test_a_file_arrives_whole_alone_and_silently_without_a_terminal(site, target, capsys):
    site.answers = [whole()]
    assert download(site.url, target, accept) == target
    assert target.read_bytes() == BODY
    assert left(target) == ['net.pth']
    assert site.ranges() == [None]
    assert capsys.readouterr().err == ''


def test_the_content_is_checked_before_it_takes_its_name(site, target):
    site.answers = [whole()]
    seen = []
    download(site.url, target, lambda path: seen.append((path.read_bytes() == BODY, target.exists())))
    assert seen == [(True, False)]


def test_a_file_in_the_cache_is_taken_without_asking_or_writing(site, target):
    target.parent.mkdir()
    target.write_bytes(BODY)
    assert download(site.url, target, refuse) == target
    assert download(site.url, target, refuse, hashlib.sha256(BODY).hexdigest()) == target
    assert site.asked == []
    assert os.listdir(target.parent) == ['net.pth']


def test_a_file_in_the_cache_with_another_hash_is_named_with_both(site, target):
    target.parent.mkdir()
    target.write_bytes(OTHER)
    found, wanted = hashlib.sha256(OTHER).hexdigest(), hashlib.sha256(BODY).hexdigest()
    with pytest.raises(UserError, match=rf'net.pth has SHA-256 {found}, but .* has {wanted}: delete the file'):
        download(site.url, target, accept, wanted)
    assert site.asked == []
    assert target.read_bytes() == OTHER


@pytest.mark.parametrize('stamp', [STRONG, {'Last-Modified': 'Wed, 21 Oct 2015 07:28:00 GMT', 'ETag': 'W/"1"'}])
def test_a_cut_off_download_goes_on_from_the_last_byte(site, target, stamp):
    site.answers = [whole(stamp=stamp, until=100_000), whole(stamp=stamp, until=200_000), whole(stamp=stamp)]
    download(site.url, target, accept)
    assert target.read_bytes() == BODY
    assert site.ranges() == [None, 'bytes=100000-', 'bytes=200000-']
    assert left(target) == ['net.pth']


def test_a_stalled_download_goes_on(site, target, monkeypatch):
    monkeypatch.setattr(MODULE, 'TIMEOUT', 0.3)
    site.answers = [whole(until=200_000, stall=5), whole()]
    download(site.url, target, accept)
    assert target.read_bytes() == BODY
    assert site.ranges()[1] is not None


def test_a_server_that_always_stalls_is_given_up_and_what_came_is_kept(site, target, monkeypatch):
    monkeypatch.setattr(MODULE, 'TIMEOUT', 0.2)
    monkeypatch.setattr(MODULE, 'ATTEMPTS', 3)
    site.answers = [whole(until=200_000, stall=5)]
    with pytest.raises(UserError, match=rf'timed out.*goes on where this one stopped: {WAYS_ON}'):
        download(site.url, target, accept)
    assert len(site.asked) == 3
    assert left(target) == ['net.pth.part', 'net.pth.part.json']


def test_progress_earns_new_attempts(site, target):
    site.answers = [whole(until=end) for end in range(20_000, 300_000, 20_000)] + [whole()]
    download(site.url, target, accept)
    assert target.read_bytes() == BODY
    assert len(site.asked) == 15 > MODULE.ATTEMPTS


def test_an_interrupted_call_is_continued_by_the_next_one(site, target, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    site.answers = [whole(until=100_000), whole()]
    with monkeypatch.context() as patch:
        patch.setattr(time, 'sleep', interrupt)
        with pytest.raises(KeyboardInterrupt):
            download(site.url, target, accept)
    assert left(target) == ['net.pth.part', 'net.pth.part.json']
    download(site.url, target, accept)
    assert target.read_bytes() == BODY
    assert site.ranges() == [None, 'bytes=100000-']


def test_what_another_run_left_is_continued_if_the_file_is_the_same(site, target):
    site.answers = [whole()]
    keep_part(target, site.url)
    download(site.url, target, accept)
    assert target.read_bytes() == BODY
    assert [(headers['Range'], headers['If-Range']) for headers in site.asked] == [('bytes=100000-', '"1"')]
    assert left(target) == ['net.pth']


@pytest.mark.parametrize(
    ('url', 'validator'), [(None, None), ('http://elsewhere/net.pth', '"1"')], ids=['no note', 'another url']
)
def test_a_part_of_unknown_or_other_origin_is_not_continued(site, target, url, validator):
    site.answers = [whole()]
    keep_part(target, url, OTHER[:100_000], validator)
    download(site.url, target, accept)
    assert target.read_bytes() == BODY
    assert site.ranges() == [None]


def test_a_broken_note_starts_over(site, target):
    site.answers = [whole()]
    keep_part(target, site.url, OTHER[:100_000])
    target.with_name('net.pth.part.json').write_text('{"url": "htt')
    download(site.url, target, accept)
    assert target.read_bytes() == BODY


def test_a_file_that_changed_between_attempts_is_entirely_the_new_one(site, target):
    site.answers = [whole(until=100_000), whole(OTHER, {'ETag': '"2"'}, until=50_000), whole(OTHER, {'ETag': '"2"'})]
    download(site.url, target, accept)
    assert target.read_bytes() == OTHER
    assert [headers['If-Range'] for headers in site.asked] == [None, '"1"', '"2"']


@pytest.mark.parametrize(
    'answer',
    [
        status(206, {**STRONG, 'Content-Range': 'bytes 90000-299999/300000'}, BODY[90_000:]),
        status(206, STRONG, BODY[100_000:]),
        status(206, {'ETag': '"2"', 'Content-Range': 'bytes 100000-249999/250000'}, OTHER[100_000:]),
        status(416, {'Content-Range': 'bytes */90000'}),
    ],
    ids=['another start', 'no range', 'another version', 'past the end'],
)
def test_an_answer_that_does_not_continue_the_part_starts_over(site, target, answer):
    site.answers = [answer, whole()]
    keep_part(target, site.url)
    download(site.url, target, accept)
    assert target.read_bytes() == BODY
    assert site.ranges() == ['bytes=100000-', None]


def test_a_piece_shorter_than_asked_for_is_continued(site, target):
    headers = {**STRONG, 'Content-Range': 'bytes 100000-149999/300000'}
    site.answers = [status(206, headers, BODY[100_000:150_000]), whole()]
    keep_part(target, site.url)
    download(site.url, target, accept)
    assert target.read_bytes() == BODY
    assert site.ranges() == ['bytes=100000-', 'bytes=150000-']


def test_a_server_without_ranges_starts_over(site, target):
    site.answers = [whole(until=100_000), whole(ranges=False)]
    download(site.url, target, accept)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize('stamp', [{}, {'ETag': 'W/"1"'}], ids=['no validator', 'weak validator'])
def test_without_a_validator_nothing_is_continued_and_no_attempt_counts_as_progress(site, target, stamp):
    site.answers = [whole(stamp=stamp, until=100_000)]
    with pytest.raises(UserError, match=rf'ends after 100000 of 300000 bytes\): {WAYS_ON}'):
        download(site.url, target, accept)
    assert site.ranges() == [None] * MODULE.ATTEMPTS
    assert not target.exists()


def test_a_body_without_a_length_arrives_whole(site, target):
    site.answers = [chunked(BODY[:100_000], ended=False), chunked()]
    download(site.url, target, accept)
    assert target.read_bytes() == BODY
    assert len(site.asked) == 2


@pytest.mark.parametrize('code', [429, 500, 503])
def test_a_busy_server_is_asked_again(site, target, code):
    site.answers = [status(code), status(code), whole()]
    download(site.url, target, accept)
    assert target.read_bytes() == BODY


def test_a_server_that_stays_broken_is_given_up_after_growing_pauses(site, target, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, 'sleep', pauses.append)
    monkeypatch.setattr(MODULE, 'PAUSE', 1.0)
    site.answers = [status(500)]
    with pytest.raises(UserError, match=rf'{site.url} .*the server answers 500 Internal Server Error\): {WAYS_ON}'):
        download(site.url, target, accept)
    assert pauses == [1, 2, 4, 8]
    assert left(target) == []


def test_a_connection_closed_without_an_answer_is_tried_again(site, target):
    site.answers = [lambda request: None, whole()]
    download(site.url, target, accept)
    assert target.read_bytes() == BODY


def test_a_server_that_is_silent_is_asked_again(site, target, monkeypatch):
    monkeypatch.setattr(MODULE, 'TIMEOUT', 0.3)
    site.answers = [lambda request: request.server.over.wait(5), whole()]
    download(site.url, target, accept)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(('code', 'said'), [(404, '404 Not Found'), (403, '403 Forbidden')])
def test_a_missing_file_is_told_at_once(site, target, code, said):
    site.answers = [status(code)]
    with pytest.raises(UserError, match=rf'{site.url} cannot be downloaded \(the server answers {said}\): {WAYS_ON}'):
        download(site.url, target, accept)
    assert len(site.asked) == 1
    assert left(target) == []


def test_a_redirect_is_followed_with_the_range(site, target):
    site.answers = [status(302, {'Location': '/elsewhere'}), whole()]
    keep_part(target, site.url)
    download(site.url, target, accept)
    assert target.read_bytes() == BODY
    assert site.ranges() == ['bytes=100000-', 'bytes=100000-']


@pytest.mark.parametrize(
    ('location', 'said'),
    [
        ('/net.pth', 'redirects without end'),
        ('file:///etc/passwd', "'file:///etc/passwd' is not allowed"),
        ('ftp://127.0.0.1/net.pth', "'ftp://127.0.0.1/net.pth' is not allowed"),
    ],
)
def test_a_redirect_that_leads_nowhere_or_off_the_web_is_refused(site, target, location, said):
    site.answers = [status(302, {'Location': location})]
    with pytest.raises(UserError, match=f'{said}.*{WAYS_ON}'):
        download(site.url, target, accept)
    assert left(target) == []


def test_a_redirect_may_lead_to_https_but_not_back():
    redirect = _SafeRedirects().redirect_request
    for start in ('http', 'https'):
        followed = redirect(Request(f'{start}://a/net.pth'), None, 302, 'Found', {}, 'https://b/net.pth')
        assert followed.full_url == 'https://b/net.pth'
    with pytest.raises(HTTPError, match=r"'http://b/net.pth' is not allowed"):
        redirect(Request('https://a/net.pth'), None, 302, 'Found', {}, 'http://b/net.pth')


def test_an_unreachable_server_is_told_at_once_with_both_ways_on(site, target):
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{closed.getsockname()[1]}/net.pth'
        with pytest.raises(UserError, match=rf'{url} cannot be reached \(.*refused\): {WAYS_ON}'):
            download(url, target, accept)
    assert left(target) == []


@pytest.mark.parametrize(
    ('error', 'attempts'),
    [
        (socket.gaierror(socket.EAI_NONAME, 'Name or service not known'), 1),
        (OSError(errno.EHOSTUNREACH, 'No route to host'), 1),
        (ConnectionResetError(errno.ECONNRESET, 'Connection reset by peer'), MODULE.ATTEMPTS),
        (TimeoutError('timed out'), MODULE.ATTEMPTS),
    ],
    ids=['name', 'route', 'reset', 'timeout'],
)
def test_only_what_may_pass_is_tried_again_when_connecting(site, target, monkeypatch, error, attempts):
    tries = []

    def connect(*args):
        tries.append(args)
        raise error

    monkeypatch.setattr(socket, 'create_connection', connect)
    with pytest.raises(UserError, match='cannot be reached'):
        download(site.url, target, accept)
    assert len(tries) == attempts


@pytest.mark.parametrize('url', ['http://127.0.0.1:port/net.pth', 'http://127.0.0.1/a net.pth', 'net.pth'])
def test_an_address_that_is_none_is_named(target, url):
    with pytest.raises(UserError, match=f'{url} is not a valid address'):
        download(url, target, accept)


def test_content_that_is_refused_does_not_stay(site, target):
    site.answers = [status(200, STRONG, b'<html>Please log in</html>')]
    with pytest.raises(UserError, match='is not a checkpoint'):
        download(site.url, target, refuse)
    assert left(target) == []


def test_a_wrong_hash_is_told_with_the_expected_one_and_nothing_stays(site, target):
    site.answers = [whole(OTHER)]
    found, wanted = hashlib.sha256(OTHER).hexdigest(), hashlib.sha256(BODY).hexdigest()
    with pytest.raises(UserError, match=rf'{site.url} has SHA-256 {found}, not the expected {wanted}'):
        download(site.url, target, accept, wanted)
    assert left(target) == []


def test_the_hash_is_of_the_whole_file_also_where_it_was_continued(site, target):
    site.answers = [whole(until=100_000), whole()]
    download(site.url, target, accept, hashlib.sha256(BODY).hexdigest())
    assert target.read_bytes() == BODY


def test_a_folder_that_cannot_be_made_is_named_with_the_way_to_another(site, target):
    target.parent.write_text('a file')
    with pytest.raises(UserError, match=rf'{target.parent} cannot take .*set TORCH_HOME to another folder'):
        download(site.url, target, accept)
    assert site.asked == []


def test_a_full_disk_is_not_taken_for_a_broken_network(site, target, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    site.answers = [whole()]
    with pytest.raises(UserError, match=rf'{target.parent} cannot take .*No space left.*TORCH_HOME'):
        download(site.url, target, accept)
    assert len(site.asked) == 1
    assert not target.exists()


# Forked, because a fresh process would import PyTorch for seconds; what they do is neither PyTorch's nor threaded.
@pytest.mark.filterwarnings('ignore:.*fork:DeprecationWarning')
def test_two_processes_at_once_leave_one_good_file_fetched_once(site, target):
    site.answers = [whole(until=100_000, stall=0.3)]
    fork = multiprocessing.get_context('fork')
    processes = [fork.Process(target=download, args=(site.url, target, accept)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(site.asked) == 1
    assert target.read_bytes() == BODY
    assert left(target) == ['net.pth']


def test_the_cache_is_pytorchs_and_a_given_name_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    path = cache_path('https://a.org/net.pth', 'fasternet_t0.pth')
    assert path == tmp_path / 'hub' / 'checkpoints' / 'fasternet_t0.pth'


def test_two_sites_files_of_one_name_are_kept_apart():
    url = 'https://a.org/best.pth?token=1'
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    assert cache_path(url).name == cache_path(f'{url}#part').name == f'best-{digest}.pth'
    assert cache_path('https://b.org/best.pth').name != cache_path('https://a.org/best.pth').name


@pytest.mark.parametrize(
    ('last', 'stem'), [('my%20net.pth', 'my net'), ('..%2F..%2Fetc%2Fnet.pth', 'net'), ('..%5Cnet.pth', 'net')]
)
def test_a_name_in_the_cache_never_leaves_its_folder(last, stem):
    path = cache_path(f'https://a.org/x/{last}')
    assert path.parent == Path(cache_path('https://a.org/net.pth')).parent
    assert path.name.startswith(f'{stem}-')


@pytest.mark.parametrize('url', ['https://a.org', 'https://a.org/x/', 'https://a.org/%2e%2e', 'https://a.org/x%2F.'])
def test_an_address_without_a_file_name_is_refused(url):
    with pytest.raises(UserError, match=f'{url} does not end in a file name'):
        cache_path(url)
