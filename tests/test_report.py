"""A study on one page: complete, readable without pictures, and nothing that a user named becomes markup."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from allocsearch import page, spec
from allocsearch.backends.catalog import Catalog
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Failed
from allocsearch.evidence import evidence
from allocsearch.figures import figures
from allocsearch.markup import escaped
from allocsearch.report import report
from allocsearch.search import results
from allocsearch.search.calibration import calibrate
from tests.chromium import serious
from tests.conformance import toy
from tests.e2e.conftest import Cli
from tests.search import simulation

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)> a|b `c` [d](http://e) *f* $g$ {{ h }}"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('report')}/studies.db"


@pytest.fixture(scope="module")
def desk(url):
    """A study with baselines, rungs, a failure and a confirmation."""
    found = toy.Desk(url, "mine")
    study = found.create(about=HOSTILE, trials=9, proxy={"rungs": [5, 10]}, confirmation={"candidates": 2, "margin": 20})
    for text, origin in (("2x2*4", "uniform"), ("6*4", "lora"), ("1x1 2x2 3x3 4x1", f"from:{HOSTILE}")):
        study.enqueue(toy.allocation(text), origin)
    while (assignment := study.ask()) is not None:
        outcome = toy.climb(assignment, lambda rung, number=assignment.number: number != 5 or rung.step < 10, bad=False)
        study.tell(assignment.number, Failed(HOSTILE, 1.0) if assignment.number == 6 else outcome)
    best = results.pareto(study.trials())[-1].trial.assignment.allocation
    beside = Catalog(url).open_companion("mine", "confirmation", found.spec, toy.proposals_of(found.spec), {})
    for seed in (51, 52):
        for allocation, origin in ((best, "random"), (toy.allocation("2x2*4"), "uniform"), (toy.allocation("6*4"), "lora")):
            beside.enqueue_assignment(Assignment(0, allocation, Routing(), (seed,), split="test", keep_weights=False), origin)
    toy.finish(beside)
    yield found
    found.close()


@pytest.fixture(scope="module")
def told(desk, url):
    """Its report, with the test rows' evidence and a calibration."""
    record = desk.record()
    tables = (simulation.accuracy(np.random.default_rng(0), (0.0, 0.01, 0.02, 0.03), studies=1, seeds=2, rows=60)[0],) * 2
    calibration = calibrate(simulation.replicates(tables), num_steps=30)
    found = evidence(Catalog(url), record, trial=results.picked(record.trials, "best").trial.number, margin=0.2)
    assert found is not None
    return report(record, found, calibration)


class Page(HTMLParser):
    """The elements of a page with their attributes, in order, and the text of each kind."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data):
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def all(self, tag):
        return [attrs for found, attrs in self.elements if found == tag]


@pytest.fixture(scope="module")
def html(told):
    return page.html(told)


@pytest.fixture(scope="module")
def shown(html):
    return Page(html)


def test_it_has_everything(told):
    names = [section.name for section in told.sections]
    drawn = ["front", "capacity", "dimensions", "rungs", "budget"]
    assert names == ["winner", "searched", *drawn, "comparison", "calibration", "failures", "limits", "again"]
    assert [grid.headings[0] for grid in told.sections[names.index("comparison")].grids][:2] == ["which", "against"]
    assert any("selection" in line for line in told.sections[names.index("limits")].lines)


def test_the_page_needs_no_network(html, shown):
    addresses = [value for _, attrs in shown.elements for key, value in attrs.items() if key in {"src", "href", "action", "srcset"}]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert "default-src 'none'" in html
    assert html.count("plotly.js v") == 1, "Plotly's script must be there once"
    assert not re.search(r"@import|url\(", html[html.index("<style>") : html.index("</style>")])


def test_what_users_named_is_text(html, shown):
    assert shown.all("img") == []
    assert all(script.keys() <= {"type", "data-plot"} for script in shown.all("script"))
    assert len(shown.all("script")) == len([1 for _, attrs in shown.elements if attrs.get("class") == "plot"]) + 2
    assert HOSTILE in " ".join(shown.texts["p"])
    assert HOSTILE in shown.texts["td"]


def test_plotlys_texts_hold_no_markup_of_users(desk):
    for figure in figures(desk.record(), None):
        assert not re.search(r"<(?!br>|extra>|/extra>)", figure.plot.to_json()), figure.name
    assert "&lt;img" in figures(desk.record(), None)[0].plot.to_json()


@pytest.mark.parametrize(("width", "schemes"), [(375, ("dark", "light")), (1280, ("light", "dark"))])
def test_a_browser_shows_it_offline_and_without_a_complaint(html, visit, tmp_path, width, schemes):
    (tmp_path / "mine.html").write_text(html, encoding="utf-8")
    address = (tmp_path / "mine.html").as_uri()
    page = visit(address, width=width, scheme=schemes[0], offline=True)
    page.wait_for_function("[...document.querySelectorAll('.plot')].every((place) => place.querySelector('.main-svg'))")
    assert page.get_by_text("WebGL is not supported").count() == 0
    assert page.locator("#plot-dimensions canvas").count() > 0
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "what is wider than the screen scrolls by itself"
    assert set(page.asked) == {address}
    assert [line for line in page.complaints if "GL Driver Message" not in line] == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    tables = page.locator("details table").all()
    assert len(tables) == 5
    assert not any(table.is_visible() for table in tables)
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert [table.is_visible() for table in tables] == [True, *[False] * 4]
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert all(table.is_visible() for table in tables), "on paper nobody can open what is closed"


def test_every_figure_is_named_and_has_the_table_behind_it(shown):
    plots = [attrs for _, attrs in shown.elements if attrs.get("class") == "plot"]
    assert len(plots) == 5
    assert all(plot["role"] == "img" and len(plot["aria-label"]) > 40 for plot in plots)
    assert len(shown.all("details")) == len(shown.all("summary")) == 5
    data = [attrs["data-plot"] for attrs in shown.all("script") if "data-plot" in attrs]
    assert data == [plot["id"] for plot in plots]


def test_the_page_can_be_walked_without_eyes_or_mouse(shown):
    assert shown.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in shown.elements if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in shown.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    referred = [attrs["aria-labelledby"] for _, attrs in shown.elements if "aria-labelledby" in attrs]
    assert {*referred, *(attrs["href"][1:] for attrs in shown.all("a"))} <= set(ids)
    assert all("scope" in attrs for attrs in shown.all("th"))
    assert all(text.strip() for text in shown.texts["th"])
    assert all(attrs.get("tabindex") == "0" and attrs.get("aria-label") for _, attrs in shown.elements if attrs.get("class") == "scroll")


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """WCAG 2.2's ratio."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_holds_in_light_and_dark(html):
    from allocsearch.figures import BLUE, GREEN, GREY, ORANGE

    themes = [dict(re.findall(r"--(\w+): (#\w{6})", rule)) for rule in re.findall(r":root \{([^}]*#\w{6}[^}]*)\}", html)]
    assert len(themes) == 2
    for theme in themes:
        assert all(contrast(theme[text], theme["paper"]) >= 4.5 for text in ("ink", "soft", "link"))
        assert contrast(theme["ink"], theme["band"]) >= 4.5
        assert all(contrast(colour, theme["paper"]) >= 3 for colour in (BLUE, ORANGE, GREEN, GREY))


def test_markdown_says_the_same_and_nothing_in_it_is_a_users_markup(told):
    text = page.markdown(told)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inline} <= {"text", "text_special"}, "no link, image, emphasis, code or raw HTML"
    assert [token.type for token in tokens if "html" in token.type] == []
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"]
    assert headings == [section.title for section in told.sections]
    num_rows = sum(token.type == "tr_open" for token in tokens)
    grids = [grid for s in told.sections for grid in (*s.grids, *((s.figure.table,) if s.figure else ()))]
    assert num_rows == sum(len(grid.rows) + 1 for grid in grids)
    assert all(len(row) == len(grid.headings) for grid in grids for row in grid.rows)


@given(st.text(max_size=60))
def test_escaped_markdown_shows_the_text_itself(text):
    tokens = MarkdownIt("commonmark").enable("table").parse(escaped(text))
    wanted = " ".join(text.split()).replace("\0", "\ufffd")
    assert [token.type for token in tokens] == (["paragraph_open", "inline", "paragraph_close"] if wanted else [])
    if wanted:
        assert "".join(child.content for child in tokens[1].children) == wanted


def test_the_spec_on_the_page_is_the_studys(told, desk, tmp_path):
    [(_, commands), (name, text)] = told.sections[-1].listings
    written = tmp_path / name
    written.write_text(text, encoding="utf-8")
    assert spec.load(str(written)) == desk.spec
    assert commands.splitlines()[0] == f"allocsearch run {name}"
    assert yaml.safe_load(text)["about"] == HOSTILE


def test_no_place_of_this_machine_is_told(desk, tmp_path):
    task = {"path": "/home/ann/train/rows.jsonl", "test_path": "/home/ann/test/rows.jsonl", "name": "own", "template": "{text}",
            "label_column": "label", "choices": ["no", "yes"]}  # fmt: skip
    own = toy.spec_of(model="/home/ann/models/small", task=task)
    told = report(replace(desk.record(), spec=own), None, None)
    assert "/home/ann" not in page.markdown(told)
    text = told.sections[-1].listings[1][1]
    for folder in ("train", "test", "small"):
        (tmp_path / folder).mkdir()
    for name in ("train/rows.jsonl", "test/rows.jsonl"):
        (tmp_path / name).write_text("", encoding="utf-8")
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    again = spec.load(str(tmp_path / "again.yaml"))
    assert (again.task.path, again.task.test_path) == tuple(str(tmp_path / name) for name in ("train/rows.jsonl", "test/rows.jsonl"))
    assert again.model == str(tmp_path / "small")


def test_the_commands_do_what_was_done_after_the_spec(desk):
    record = desk.record()
    asked = {"candidates": 4, "seeds": 2, "random_trials": 0, "margin": 1.5}
    later = replace(record, attrs={**record.attrs, "target_trials": 20, "confirmation": asked})
    before, after = (report(one, None, None).sections[-1].listings[0][1].splitlines() for one in (record, later))
    assert not any("confirm" in line for line in before)
    assert after[:2] == [
        "allocsearch run mine.yaml --trials 20",
        "allocsearch confirm mine --candidates 4 --seeds 2 --random-trials 0 --margin 1.5",
    ]


def test_figures_show_what_was_measured(desk, url):
    record = desk.record()
    found = evidence(Catalog(url), record, trial=results.picked(record.trials, "best").trial.number)
    drawn = {figure.name: json.loads(figure.plot.to_json()) for figure in figures(record, found)}
    front, best = drawn["front"]["data"], results.pareto(record.trials)
    by_name = {trace["name"]: trace for trace in front}
    assert by_name["front"]["y"] == [point.measured.accuracy for point in best]
    for y, up, point in zip(by_name["front"]["y"], by_name["front"]["error_y"]["array"], best, strict=True):
        assert y + up == pytest.approx(point.interval[1])
    assert by_name["confirmed, test rows"]["x"] == [row.trial.cost.trainable for row in found.rows]
    assert {trace["name"] for trace in drawn["rungs"]["data"]} == {"finished", "stopped"}
    assert {trace["name"]: len(trace["x"]) for trace in drawn["budget"]["data"]}["failed"] == 1
    [heat] = drawn["capacity"]["data"]
    assert [row[-1] for row in heat["z"]] == [sum(plan.sizes("q")) for plan in best[-1].trial.assignment.allocation]


def test_a_study_that_was_not_confirmed_says_so(desk):
    record = replace(desk.record(), attrs={})
    told = report(record, None, None)
    assert any("not confirmed" in line for line in told.sections[0].lines)
    [section] = [section for section in told.sections if section.name == "comparison"]
    assert any("allocsearch confirm mine" in line for line in section.lines)


def test_a_terminal_draws_each_allocation_of_the_front(desk):
    from rich.console import Console

    from allocsearch import terminal

    points = results.pareto(desk.record().trials)
    for drawn in (True, False):
        written = io.StringIO()
        Console(width=400, file=written).print(terminal.front_table(points, title="front", bars=drawn))
        assert written.getvalue().count("experts ") == drawn * len(points)


def test_the_command_writes_the_file(desk, url, tmp_path):
    cli = Cli(tmp_path / "home")
    assert "mine.html" in cli("report", "mine", "--storage", url).stderr
    assert (cli.home / "mine.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    cli("report", "mine", "--storage", url, "--format", "md", "-o", "told.md")
    assert "## The winner" in (cli.home / "told.md").read_text(encoding="utf-8")
    assert "told.md" in cli("report", "mine", "--storage", url, "-o", "told.md/below.html", code=2).stderr
    cli("report", "other", "--storage", url, code=2)
    Catalog(url).create("empty", toy.spec_of(), {})
    assert "finished trial" in cli("report", "empty", "--storage", url, code=3).stderr
