import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from fasternet_mm.visualization import fonts
from fasternet_mm.visualization.drawing import draw_objects, with_legend


@pytest.fixture
def system_fonts(tmp_path, monkeypatch):
    """The system has a font whose only letter is 猫, a full square of the letters' size, and a file that is none."""

    def glyph(size):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for point in ((0, size), (size, size), (size, 0)):
            pen.lineTo(point)
        pen.closePath()
        return pen.glyph()

    builder = FontBuilder(1000)
    builder.setupGlyphOrder(['.notdef', 'cat'])
    builder.setupCharacterMap({ord('猫'): 'cat'})
    builder.setupGlyf({'.notdef': glyph(1), 'cat': glyph(1000)})
    builder.setupHorizontalMetrics({'.notdef': (1000, 0), 'cat': (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({'familyName': 'Cats', 'styleName': 'Regular'})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / 'cats.ttf')
    (tmp_path / 'broken.ttf').write_bytes(b'no font')
    monkeypatch.setattr(fonts, 'findSystemFonts', lambda: [str(path) for path in tmp_path.iterdir()])
    for function in (fonts._file_with, fonts._tell_of_squares):
        function.cache_clear()
    yield tmp_path
    for function in (fonts._file_with, fonts._tell_of_squares):
        function.cache_clear()


def test_letters_that_the_own_font_lacks_come_from_a_font_of_the_system(system_fonts, logged_warnings):
    assert fonts.font_for(['猫'], 20).path == str(system_fonts / 'cats.ttf')
    assert fonts.font_for(['chat à l’œil, кот, γάτα 0.91'], 20).path == fonts.OWN_FONT
    assert logged_warnings() == []


def test_letters_of_no_font_are_told_once(system_fonts, logged_warnings):
    assert fonts.font_for(['犬'], 20).path == fonts.OWN_FONT
    fonts.font_for(['馬'], 20)
    assert len(logged_warnings()) == 1
    assert 'fonts-noto-cjk' in logged_warnings()[0]


def test_drawings_and_legends_have_these_letters(system_fonts):
    image = np.full((100, 200, 3), 255, np.uint8)
    drawing = draw_objects(image, np.array([[20.0, 40, 60, 80]]), [(200, 200, 0)], ['猫'])
    assert (drawing == 0).all(axis=2).sum() == 10 * 10  # letters are as high as the smallest text
    legend = with_legend(image, [np.zeros((100, 200), int)], ['猫'])
    assert (legend == 0).all(axis=2).sum() == 10 * 10
