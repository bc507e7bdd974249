"""The page as visitors use it, in headless Chromium, and as strangers' programs may misuse it."""

import io
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fasternet_mm.errors import UserError
from fasternet_mm.serving.predicted_upload import predict_upload
from fasternet_mm.serving.uploads import Limits

pytest.importorskip('gradio', reason="the page needs the extra 'app'")

import httpx
from page_visitors import UPLOADED, StandIn, encoded, png, request, sent_file, upload, visit

LIMITS = Limits(megabytes=2, megapixels=1)


@pytest.fixture(scope='module')
def predictor():
    return StandIn()


@pytest.fixture(scope='module')
def address(predictor):
    from fasternet_mm.serving.gradio_page import open_page

    with open_page(predictor, 'stand-in', limits=LIMITS) as address:
        yield address.rstrip('/')


@pytest.fixture(scope='module')
def tab(browser, address):
    """The page in a browser, for one test after the other; in the end nothing must have failed or come from others."""
    page = browser.new_page()
    page.set_default_timeout(60_000)
    errors, answers = [], []
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.on('response', lambda answer: answers.append(answer))
    page.goto(address)
    page.get_by_text('Drop File Here').wait_for()
    yield page
    assert errors == []
    assert [answer.url for answer in answers if not answer.url.startswith((address, 'data:', 'blob:'))] == []
    # Gradio asks how far an upload is when it may be done already.
    failed = [answer.url for answer in answers if answer.status >= 400 and 'upload_progress' not in answer.url]
    assert failed == []


def send(tab, name, content):
    tab.locator('input[type=file]').set_input_files(dict(name=name, mimeType='', buffer=content))


def wait_for(tab, text):
    tab.get_by_text(re.compile(text)).first.wait_for()


def test_an_image_is_sent_and_the_threshold_moves_without_the_model(tab, predictor):
    send(tab, 'red.png', png())
    wait_for(tab, r'2 of 3 objects are drawn: 1 circle 0.90; 1 ring 0.60. The model took \d+ ms.')
    calls = predictor.calls
    slider = tab.get_by_role('slider')
    slider.focus()
    slider.press('Home')
    wait_for(tab, '3 of 3 objects are drawn')
    tab.get_by_role('combobox', name='Classes').click()
    tab.get_by_role('option', name='circle').click()
    wait_for(tab, '2 of 3 objects are drawn: 2 circle 0.90, 0.20')
    assert predictor.calls == calls
    # The text may be there before the drawing is decoded; small images are enlarged.
    tab.wait_for_function(
        '(image => image.complete && image.naturalHeight == 480 && image.naturalWidth == 640)'
        "(document.querySelector('.drawing img'))"
    )


def downloaded(tab, label):
    with tab.expect_download() as download:
        tab.get_by_role('link', name=label).or_(tab.get_by_role('button', name=label)).first.click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_what_is_shown_can_be_downloaded(tab):
    name, content = downloaded(tab, 'Download PNG')
    assert name == 'red.png'
    assert Image.open(io.BytesIO(content)).size == (640, 480)
    name, content = downloaded(tab, 'Download COCO')
    assert name == 'red-coco.json'
    assert [(record['category_id'], record['bbox']) for record in json.loads(content)] == [
        (1, [10, 10, 30, 20]),
        (1, [30, 30, 20, 20]),
    ]
    name, content = downloaded(tab, 'Download JSON')
    assert name == 'red.json'
    assert [(item['class'], item['score']) for item in json.loads(content)['objects']] == [
        ('circle', 0.9),
        ('circle', 0.2),
    ]


def test_a_video_is_drawn_frame_by_frame(tab, tmp_path):
    file = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*'MJPG'), 10, (160, 120))
    for _ in range(5):
        writer.write(np.full((120, 160, 3), 90, np.uint8))
    writer.release()
    send(tab, 'clip.avi', file.read_bytes())
    wait_for(tab, r'10 of 15 objects are drawn: 10 circle. The model took \d+ ms for each of 5 frames.')
    tab.locator('.drawing video').wait_for()
    tab.wait_for_function('document.querySelector(".drawing video").videoWidth == 640')  # enlarged
    name, content = downloaded(tab, 'Download WebM')
    (tmp_path / name).write_bytes(content)
    assert cv2.VideoCapture(str(tmp_path / name)).get(cv2.CAP_PROP_FRAME_COUNT) == 5


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
FRAMES = [Image.new('RGB', (9, 9), color) for color in ('red', 'blue')]
REFUSED = {
    'note.jpg': (b'no image at all', 'The file is not an image of a kind that is accepted'),
    'huge.png': (png(1001, 1000), 'The image has more than 1 megapixels'),
    'drawing.svg': (SVG, 'The file is not an image of a kind that is accepted'),
    'moving.gif': (encoded(FRAMES[0], 'GIF', save_all=True, append_images=FRAMES[1:]), 'The file has several frames'),
    'list.mp4': (b'#EXTM3U\n/etc/hostname\n', 'list.mp4 is not a video that can be read'),
    'cut.mp4': (b'\0\0\0\x18ftypmp42\0\0\0\0', 'cut.mp4 is not a video that can be read'),
    'large.png': (png() + bytes(3_000_000), 'maximum allowed size'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_a_bad_upload_gets_a_sentence(name, tab, predictor):
    content, sentence = REFUSED[name]
    calls = predictor.calls
    send(tab, name, content)
    wait_for(tab, sentence)
    assert predictor.calls == calls


def test_the_name_of_the_place_hides_nothing_of_the_drawing(tab):
    send(tab, 'gray.png', png())
    drawing = tab.get_by_role('img', name='The image with what was found drawn in')
    drawing.wait_for()
    name = tab.locator('.drawing:visible [data-testid=block-label]').bounding_box()
    assert name['y'] + name['height'] <= drawing.bounding_box()['y'] + 1


def test_what_the_model_says_of_an_image_comes_without_a_number(tmp_path):
    class Refusing(StandIn):
        def __call__(self, image):
            raise UserError('image 1: an image of 3x5000 pixels (H x W) cannot be resized')

    (tmp_path / 'wide.png').write_bytes(png())
    with pytest.raises(UserError, match=r'^an image of 3x5000 pixels \(H x W\) cannot be resized$'):
        predict_upload(Refusing(), tmp_path / 'wide.png', tmp_path, LIMITS)


def test_twenty_visitors_at_once_get_each_their_own_answer(address):
    with ThreadPoolExecutor(20) as visitors:
        answers = visitors.map(lambda number: visit(address, 'same.png', png(red=30 + number)), range(20))
    heights = [[record['bbox'][3] for record in records if record['category_id'] == 2] for records in answers]
    assert heights == [[30 + number] for number in range(20)]


def test_no_table_is_made_of_earlier_requests(address, monkeypatch):
    """Gradio's monitoring would make one after each event, of up to 10,000 others."""
    tables = []
    monkeypatch.setattr('gradio.queueing.Queue._get_df', lambda *records: tables.append(records))
    visit(address, 'a.png', png())
    assert tables == []


def test_the_machines_other_files_are_not_given(address, tmp_path, predictor):
    secret = tmp_path / 'secret.png'
    secret.write_bytes(png())
    calls = predictor.calls
    assert not request(address, 'thief', UPLOADED, [sent_file(str(secret))])['success']
    assert predictor.calls == calls
    assert httpx.get(f'{address}/gradio_api/file={secret}').status_code == 403


def test_a_url_in_the_place_of_a_file_is_refused(address):
    body = dict(data=[sent_file('http://localhost:1/a.png')], fn_index=UPLOADED, session_hash='thief')
    assert httpx.post(f'{address}/gradio_api/queue/join', json=body).status_code == 400


@pytest.mark.parametrize(
    'path',
    ['/gradio_api/proxy=https://localhost:1', '/gradio_api/info', '/monitoring', '/gradio_api/run/predict', '/docs'],
)
def test_what_the_page_does_not_ask_for_is_not_there(path, address):
    assert httpx.get(address + path).status_code == 404


def test_a_request_that_is_too_large_or_has_no_size_is_refused_unread(address):
    def chunks():
        yield b'x'

    join = f'{address}/gradio_api/queue/join'
    assert httpx.post(join, content=chunks()).status_code == 411
    assert httpx.post(join, content=b' ' * 200_000).status_code == 413
    assert httpx.post(f'{address}/gradio_api/upload', files=dict(files=('a.png', bytes(3_000_000)))).status_code == 413


def test_another_sites_name_for_this_machine_is_refused(address):
    assert httpx.get(address, headers=dict(host='evil.example')).status_code == 400


def test_uploads_are_gone_when_the_page_ends(predictor):
    from fasternet_mm.serving.gradio_page import open_page

    with open_page(predictor, 'stand-in', limits=LIMITS) as address:
        file = Path(upload(address.rstrip('/'), 'a.png', png()))
        assert file.read_bytes() == png()
    assert not file.exists()
    assert not file.parent.parent.exists()


def test_a_port_that_is_taken_is_told(predictor):
    from fasternet_mm.serving.gradio_page import open_page

    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f'127.0.0.1, port {port},'), open_page(predictor, 'stand-in', port=port):
            pass


def test_a_host_that_is_not_this_machines_is_told_at_once(predictor):
    from fasternet_mm.serving.gradio_page import open_page

    with pytest.raises(UserError, match=r'^192\.0\.2\.1 cannot be'), open_page(predictor, 'a', '192.0.2.1'):
        pass
