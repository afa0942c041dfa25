"""Pictures of a report and of the dashboard for the documentation: docs/images/report.png and dashboard.png.

    python benchmarks/screenshots.py STUDY --storage FOLDER/studies.db

The database is copied first, as drawing the graphs writes into it. Needs Debian's Chromium.
"""

import argparse
import queue
import shutil
import tempfile
import threading
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from allocsearch import page as pages
from allocsearch.backends import dashboard
from allocsearch.backends.catalog import Catalog
from allocsearch.board import Board
from allocsearch.telling import tell

IMAGES = Path(__file__).parent.parent / "docs" / "images"
GRAPHS = "[id^='user-defined-plot:allocsearch-']"
PATIENCE = 300_000
"""Milliseconds; a machine may be busy."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--storage", type=Path, required=True)
    given = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as engines:
        copy = Path(shutil.copy(given.storage, Path(folder) / "studies.db"))
        catalog = Catalog(f"sqlite:///{copy}")
        options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = engines.chromium.launch(executable_path=shutil.which("chromium"), args=options, timeout=PATIENCE)
        _report(browser, catalog, given.study, Path(folder))
        _dashboard(browser, catalog, given.study)
        browser.close()


def _report(browser: Browser, catalog: Catalog, study: str, folder: Path) -> None:
    file = folder / "report.html"
    file.write_text(pages.html(tell(catalog, catalog.record(study))), encoding="utf-8")
    page = _opened(browser, file.as_uri(), width=1000)
    page.wait_for_function("[...document.querySelectorAll('.plot')].every((place) => place.querySelector('.main-svg'))")
    _shot(page, "section[aria-labelledby=front], section[aria-labelledby=capacity]", "report.png")


def _dashboard(browser: Browser, catalog: Catalog, study: str) -> None:
    Board(catalog, study, print).draw()
    said = queue.Queue[str]()
    options = {"host": "127.0.0.1", "port": 0, "say": said.put}
    threading.Thread(target=dashboard.serve, args=(catalog.url,), kwargs=options, daemon=True).start()
    address = said.get().split()[2].rstrip(",")
    page = _opened(browser, f"{address}dashboard", width=1280)
    summaries = page.request.get(f"{address}api/studies").json()["study_summaries"]
    number = next(each["study_id"] for each in summaries if each["study_name"] == study)
    page.goto(f"{address}dashboard/studies/{number}")
    page.locator(f"{GRAPHS} .main-svg").first.wait_for()
    page.wait_for_timeout(10_000)
    _shot(page, GRAPHS, "dashboard.png")


def _opened(browser: Browser, address: str, *, width: int) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 3600}, color_scheme="light")
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    return page


def _shot(page: Page, selector: str, name: str) -> None:
    """Everything from the first to the last element that `selector` names."""
    boxes = [box for box in (place.bounding_box() for place in page.locator(selector).all()) if box is not None]
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right, bottom = max(box["x"] + box["width"] for box in boxes), max(box["y"] + box["height"] for box in boxes)
    page.screenshot(path=IMAGES / name, clip={"x": left, "y": top, "width": right - left, "height": bottom - top})
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
