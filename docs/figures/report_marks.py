"""Draw docs/images/report.png: parts of a report, each with a numbered mark that docs/evaluation.md explains.

Of each table the first three rows are left, of images the first two, of what is folded in nothing.

Example:
    fasternet-mm test work_dirs/rtmdet_ins_fasternet_t0_shapes --report report.html
    python docs/figures/report_marks.py report.html docs/images/report.png

It needs Chromium and the packages of requirements-test.txt.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PARTS = ('summary', 'classes', 'confusion', 'errors', 'calibration', 'threshold', 'images', 'labels')
"""Ids of the sections that are shown, in the order of their numbers."""

WIDTH = 1360
"""Of the window, in pixels: here no table is cut, and plots stand side by side."""

COLORS = 96
"""Of the image's palette: text and plots look the same with these, and the file has a third of the size."""

MARK = """
(parts) => {
  for (const section of document.querySelectorAll('section')) {
    const number = parts.indexOf(section.id) + 1;
    if (!number) { section.remove(); continue; }
    section.querySelectorAll('details').forEach((details) => details.remove());
    const rest = section.querySelectorAll('tbody tr:nth-child(n+4), .images > figure:nth-child(n+3)');
    rest.forEach((part) => part.remove());
    const mark = document.createElement('span');
    mark.textContent = number;
    mark.style.cssText = 'display:inline-block; width:1.9em; line-height:1.9em; margin-right:0.5em; border-radius:50%;'
      + 'background:#b5179e; color:#fff; text-align:center; font-weight:700;';
    section.querySelector('h2').prepend(mark);
  }
  document.querySelectorAll('nav, footer, .skip').forEach((part) => part.remove());
  return [...document.querySelectorAll('section')].map((section) => section.id);
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('report')
    parser.add_argument('out')
    args = parser.parse_args()
    program = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=['--no-sandbox', '--disable-gpu'])
        page = browser.new_page(viewport=dict(width=WIDTH, height=900), color_scheme='light')
        page.goto(Path(args.report).resolve().as_uri())
        shown = page.evaluate(MARK, PARTS)
        missing = set(PARTS) - set(shown)
        if missing:
            parser.error(f'{args.report} has no sections {", ".join(sorted(missing))}')
        screenshot = page.screenshot(full_page=True)
        browser.close()
    image = Image.open(io.BytesIO(screenshot)).convert('RGB').quantize(COLORS, dither=Image.Dither.NONE)
    image.save(args.out, optimize=True)
    print(f'{args.out}: {image.width}x{image.height}, {Path(args.out).stat().st_size / 1000:.0f} kB')


if __name__ == '__main__':
    main()
