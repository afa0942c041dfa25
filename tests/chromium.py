"""A real browser: Debian's Chromium, driven by Playwright. Nothing is downloaded."""

import shutil

import pytest

DRAWN_BY_SOFTWARE = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@pytest.fixture(scope="module")  # while Playwright runs, nothing else in this thread can run an event loop
def chromium():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("only a browser can tell: install the package `chromium` (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engines:
        browser = engines.chromium.launch(executable_path=path, args=list(DRAWN_BY_SOFTWARE), timeout=300_000)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens a page, which keeps what it complained of and what it asked the network for."""
    contexts = []

    def open_page(address, *, width=1280, height=900, scheme="light", offline=False):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=offline)
        context.set_default_timeout(300_000)
        contexts.append(context)
        page = context.new_page()
        page.complaints, page.asked, page.answers = [], [], []
        page.on("console", lambda message: page.complaints.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("response", lambda response: page.answers.append((response.request.method, response.status)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()


def serious(page):
    """The violations that axe-core calls serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found if one["impact"] in {"serious", "critical"}]
