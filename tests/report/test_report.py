"""Reports as a person sees them, in headless Chromium."""

import json

import numpy as np
import pytest
from PIL import Image

from fasternet_mm.datasets import shapes
from fasternet_mm.errors import UserError
from fasternet_mm.report.detection_report import write_detection_report
from fasternet_mm.report.label_map_errors import LabelMapPairs
from fasternet_mm.report.segmentation_report import write_segmentation_report
from fasternet_mm.report.worst_images import find_images

DETECTION_SECTIONS = {
    'summary': 'COCO figures',
    'classes': 'Classes',
    'precision-recall': 'Precision and recall',
    'sizes': 'Object sizes',
    'confusion': 'Confusion',
    'errors': 'Errors',
    'calibration': 'Calibration',
    'threshold': 'Score threshold',
    'images': 'Worst images',
    'labels': 'Suspicious labels',
}
SEGMENTATION_SECTIONS = {
    'summary': 'Figures',
    'classes': 'Classes',
    'confusion': 'Confusion',
    'images': 'Worst images',
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Eight of the embedded images, and detections with every kind of mistake."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, 'SPLITS', {'val': 8})
        root = shapes.ensure_shapes(tmp_path_factory.mktemp('data') / 'shapes')
    rng = np.random.default_rng(0)
    records = []
    for one in json.loads((root / 'annotations/val.json').read_text())['annotations']:
        record = {key: one[key] for key in ('image_id', 'category_id', 'bbox', 'segmentation')}
        record['score'] = float(rng.random())
        kind = rng.choice(['right', 'right', 'class', 'loose', 'missed', 'twice'])
        if kind == 'class':
            record['category_id'] = record['category_id'] % 6 + 1
        if kind == 'loose':
            record['bbox'] = [one['bbox'][0] + 0.5 * one['bbox'][2], *one['bbox'][1:]]
        records += [record] * {'missed': 0, 'twice': 2}.get(kind, 1)
    (root / 'results.json').write_text(json.dumps(records))
    return root


@pytest.fixture(scope='module')
def detection_page(data):
    page = data / 'detection.html'
    write_detection_report(page, data / 'results.json', data / 'annotations/val.json', data / 'images/val')
    return page


def test_a_report_does_not_depend_on_the_size_of_image_ids(data, detection_page, tmp_path):
    """Time stamps in nanoseconds have 19 digits, more than a float64."""
    (tmp_path / 'annotations').mkdir()
    for name in ('annotations/val.json', 'results.json'):
        content = json.loads((data / name).read_text())
        records = content if isinstance(content, list) else [*content['images'], *content['annotations']]
        for record in records:
            record['image_id' if 'image_id' in record else 'id'] += 2**63 - 9
        (tmp_path / name).write_text(json.dumps(content))
    page = tmp_path / 'detection.html'
    write_detection_report(page, tmp_path / 'results.json', tmp_path / 'annotations/val.json', data / 'images/val')
    assert page.read_text() == detection_page.read_text()


@pytest.fixture(scope='module')
def segmentation_page(data):
    truths = sorted((data / 'labels/val').glob('*.png'))
    (data / 'found').mkdir()
    for path in truths:
        Image.fromarray(np.roll(np.array(Image.open(path)), 3)).save(data / 'found' / path.name)
    maps = LabelMapPairs(
        predictions=[data / 'found' / path.name for path in truths],
        truths=truths,
        images=[data / 'images/val' / path.name for path in truths],
        classes=['background', *shapes.CLASSES],
    )
    page = data / 'segmentation.html'
    write_segmentation_report(page, maps)
    return page


def open_page(browser, file, **options):
    """The page in a new window, and everything that it asked for or complained of."""
    page = browser.new_context(**options).new_page()
    complaints, requests = [], []
    page.on('console', lambda message: complaints.append(message.text))
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.on('request', lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    assert complaints == []
    assert [url for url in requests if not url.startswith('data:')] == [file.as_uri()]
    return page


@pytest.mark.parametrize(
    ('kind', 'sections', 'plots', 'images'),
    [('detection', DETECTION_SECTIONS, 13, 6), ('segmentation', SEGMENTATION_SECTIONS, 2, 8)],
)
def test_every_section_is_there_and_nothing_is_asked_for_or_wrong(kind, sections, plots, images, browser, request):
    page = open_page(browser, request.getfixturevalue(f'{kind}_page'))
    titles = {
        section.get_attribute('id'): section.locator('h2').inner_text() for section in page.locator('section').all()
    }
    assert titles == sections
    assert [link.get_attribute('href') for link in page.locator('nav a').all()] == [f'#{name}' for name in sections]
    assert page.locator('section svg').count() == plots
    assert all(svg.get_attribute('aria-label') for svg in page.locator('section svg').all())
    assert page.locator('#images img').count() == 2 * images
    assert page.evaluate('[...document.images].every(image => image.complete && image.naturalWidth > 0 && image.alt)')


@pytest.mark.parametrize('kind', ['detection', 'segmentation'])
def test_a_phone_shows_it_without_scrolling_sideways_and_every_table_whole(kind, browser, request):
    page = open_page(
        browser, request.getfixturevalue(f'{kind}_page'), viewport={'width': 360, 'height': 740}, is_mobile=True
    )
    page.evaluate("document.querySelectorAll('details').forEach(folded => { folded.open = true })")
    assert page.evaluate('document.documentElement.scrollWidth') <= 360
    hidden = """[...document.querySelectorAll('td, tbody th')]
        .filter(cell => cell.getBoundingClientRect().right > 360 || cell.scrollWidth > cell.clientWidth + 1)
        .map(cell => cell.textContent)"""
    assert page.evaluate(hidden) == []


def test_on_a_phone_each_figure_of_a_wide_table_has_its_name(browser, detection_page):
    page = open_page(browser, detection_page, viewport={'width': 360, 'height': 740}, is_mobile=True)
    names = """[...document.querySelectorAll('#summary tbody tr:first-child td')]
        .map(cell => getComputedStyle(cell, '::before').content)"""
    header = page.locator('#summary thead th').all_text_contents()
    assert page.evaluate(names) == [f'"{name}"' for name in header[1:]]
    assert page.locator('#summary thead').is_hidden()


def test_a_desktop_is_used_over_its_whole_width_and_no_table_is_cut(browser, detection_page):
    page = open_page(browser, detection_page, viewport={'width': 1400, 'height': 900})
    page.evaluate("document.querySelectorAll('details').forEach(folded => { folded.open = true })")
    right = """name => Math.max(...[...document.querySelectorAll(`#${name} :is(table, svg, img)`)]
        .map(element => element.getBoundingClientRect().right))"""
    assert {name: page.evaluate(right, name) > 1300 for name in DETECTION_SECTIONS} == dict.fromkeys(
        DETECTION_SECTIONS, True
    )
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].every(box => box.scrollWidth <= box.clientWidth + 1)"
    )


@pytest.mark.parametrize('kind', ['detection', 'segmentation'])
def test_truth_and_prediction_are_named_above_their_images(kind, browser, request):
    page = open_page(
        browser, request.getfixturevalue(f'{kind}_page'), viewport={'width': 390, 'height': 844}, is_mobile=True
    )
    parts = page.locator('.pair > div')
    assert parts.count() > 0
    for number, part in enumerate(parts.all()):
        assert part.inner_text() == ['Truth', 'Prediction'][number % 2]
        name = ['Ground truth of', 'Prediction for'][number % 2]
        assert part.locator('img').get_attribute('alt').startswith(name)


@pytest.mark.parametrize('kind', ['detection', 'segmentation'])
def test_no_two_texts_of_a_plot_touch(kind, browser, request):
    page = open_page(browser, request.getfixturevalue(f'{kind}_page'), viewport={'width': 1400, 'height': 900})
    touching = """[...document.querySelectorAll('section svg')].flatMap(svg => {
        const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
        return boxes.flatMap(([name, a], i) => boxes.slice(i + 1)
            .filter(([, b]) => a.left < b.right && b.left < a.right && a.top < b.bottom - 4 && b.top < a.bottom - 4)
            .map(([other]) => `${svg.getAttribute('aria-label')}: ${name} and ${other}`));
    })"""
    assert page.evaluate(touching) == []


def test_a_suspicious_label_is_shown_with_what_the_model_says_there(data, browser, tmp_path):
    """Of labels that a model finds without a mistake, one has another class."""
    content = json.loads((data / 'annotations/val.json').read_text())
    keys = ('image_id', 'category_id', 'bbox', 'segmentation')
    found = [{key: one[key] for key in keys} | dict(score=0.9) for one in content['annotations']]
    (tmp_path / 'results.json').write_text(json.dumps(found))
    names = {category['id']: category['name'] for category in content['categories']}
    label = content['annotations'][5]
    right, label['category_id'] = label['category_id'], label['category_id'] % 6 + 1
    (tmp_path / 'val.json').write_text(json.dumps(content))
    file = next(image['file_name'] for image in content['images'] if image['id'] == label['image_id'])
    write_detection_report(tmp_path / 'a.html', tmp_path / 'results.json', tmp_path / 'val.json', data / 'images/val')
    section = open_page(browser, tmp_path / 'a.html').locator('#labels')
    assert '1 have a suspicion of 0.5 or more: 1 × wrong class.' in section.locator('p').inner_text()
    caption = section.locator('figcaption').inner_text()
    assert caption.startswith(f'{file}: wrong class, suspicion 0.')
    sentence = f'Labeled “{names[label["category_id"]]}”, and the model sees “{names[right]}” (0.90).'
    assert caption.endswith(sentence)
    assert section.locator('img').count() == 2


def test_dark_mode_has_light_text_in_the_page_and_in_its_plots(browser, detection_page):
    page = open_page(browser, detection_page, color_scheme='dark')
    colors = page.evaluate(
        """() => ['body', 'section svg text'].map(
            name => getComputedStyle(document.querySelector(name))[name === 'body' ? 'backgroundColor' : 'fill'])"""
    )
    background, text = ([int(value) for value in color[4:-1].split(',')] for color in colors)
    assert max(background) < 60
    assert min(text) > 180


def test_the_keyboard_alone_reaches_everything(browser, detection_page):
    page = open_page(browser, detection_page)
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.className') == 'skip'
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.hash') == '#summary'
    page.locator('#classes summary').first.focus()
    assert page.locator('#classes table').first.is_hidden()
    page.keyboard.press('Enter')
    assert page.locator('#classes table').first.is_visible()


def test_printing_leaves_out_what_only_a_screen_needs(browser, detection_page):
    page = open_page(browser, detection_page)
    page.emulate_media(media='print')
    assert page.locator('nav').is_hidden()
    assert page.pdf().startswith(b'%PDF')


def test_what_strangers_named_is_shown_as_text(browser, data, tmp_path):
    content = json.loads((data / 'annotations/val.json').read_text())
    names = ['<script>alert(1)</script>', '$\\frac{', '"><img src=http://example.org/a.png>', "'", '&amp;', 'ring']
    for category, name in zip(content['categories'], names):
        category['name'] = name
    for image in content['images']:
        image['file_name'] = f'<b>{image["id"]}</b>'
    (tmp_path / 'val.json').write_text(json.dumps(content))
    write_detection_report(tmp_path / 'page.html', data / 'results.json', tmp_path / 'val.json', title='<i>x</i>')
    page = open_page(browser, tmp_path / 'page.html')
    assert page.locator('script, img, b, i').count() == 0
    rows = page.locator('#classes tbody th').all_text_contents()
    assert set(rows) == set(names)
    assert set(names) <= set(page.locator('#classes svg text').all_text_contents())


def test_no_image_outside_the_folder_is_read(tmp_path):
    for name in ('../secret.png', '/etc/passwd', 'a/../../b.png', ''):
        with pytest.raises(UserError, match='only names inside'):
            find_images(tmp_path, {1: name})


def test_missing_images_are_named_before_the_long_work(data, tmp_path):
    with pytest.raises(UserError, match=r'0000.png does not exist \(8 of 8 images are missing\)'):
        write_detection_report(tmp_path / 'a.html', data / 'results.json', data / 'annotations/val.json', tmp_path)
    assert not (tmp_path / 'a.html').exists()
