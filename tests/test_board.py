"""What Optuna's dashboard shows of a study: ours, replaced and not piled up, and never at the search's cost."""

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import get_args

import pytest
from markdown_it import MarkdownIt
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

import allocsearch
from allocsearch import board, driver, spec
from allocsearch.backends import dashboard_content
from allocsearch.backends.catalog import Catalog
from allocsearch.backends.study_record import Companion
from allocsearch.core.trial import Failed
from allocsearch.options import Options
from allocsearch.search import results
from tests.conformance import toy
from tests.serving import serving

HOSTILE = "</script><img src=x onerror=alert(1)> a|b `c` [d](http://e) *f* $g$"


@pytest.fixture
def desk(tmp_path):
    found = toy.Desk(f"sqlite:///{tmp_path / 'studies.db'}", "mine")
    yield found
    found.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def drawn(request, tmp_path_factory):
    """A study with rungs, a failure and long names, drawn once; and what that said."""
    own = f"sqlite:///{tmp_path_factory.mktemp('board')}/studies.db"
    desk = toy.Desk(own if request.param == "sqlite" else request.getfixturevalue("postgres_url"), "drawn")
    begun(desk, trials=4, origin=f"from:{HOSTILE * 200}")
    drawing, said = board_of(desk)
    drawing.draw()
    yield desk, said
    desk.close()


def begun(desk, *, origin="uniform", **changes):
    study = desk.create(about=HOSTILE, proxy={"rungs": [5, 10]}, **changes)
    study.enqueue(toy.allocation("2x2*4"), origin)
    while (assignment := study.ask()) is not None:
        outcome = toy.climb(assignment, lambda _: True, bad=False)
        study.tell(assignment.number, Failed(HOSTILE, 1.0) if assignment.number == 2 else outcome)
    return study


def board_of(desk, clock=time.monotonic):
    said = []
    return board.Board(Catalog(desk.url), desk.name, said.append, clock=clock), said


def graphs(desk):
    study = desk.stored()
    return {
        name: json.loads(text) for name, text in get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id)).items()
    }


def test_a_finished_study_has_every_graph_and_a_note(drawn):
    desk, said = drawn
    assert said == []
    found = graphs(desk)
    assert sorted(found) == [f"allocsearch-{name}" for name in ("budget", "capacity", "dimensions", "front", "rungs")]
    assert found["allocsearch-front"]["layout"]["title"]["text"] == "Pareto front"
    best = results.pareto(desk.record().trials)
    [front] = [trace for trace in found["allocsearch-front"]["data"] if trace["name"] == "front"]
    assert front["y"] == [point.accuracy for point in best]
    note = get_note(desk.stored())
    assert all(text in note for text in ("## The winner", "Best Trials", "allocsearch confirm drawn"))


def test_a_study_with_graphs_is_still_a_plain_optuna_study(drawn):
    desk, _ = drawn
    texts = get_plotly_graph_objects(desk.stored()._storage.get_study_system_attrs(desk.stored()._study_id))
    assert len(texts["allocsearch-front"]) > 10 * 2045, "the graph must be too long for one attribute"
    assert desk.stored().metric_names == ["accuracy", "trainable_params"]
    assert desk.stored().best_trials


def test_what_users_named_is_text_in_the_note(drawn):
    desk, _ = drawn
    tokens = MarkdownIt("commonmark").enable("table").parse(get_note(desk.stored()).split(dashboard_content.OURS_ENDS)[0])
    inline = [child for token in tokens for child in token.children or ()]
    assert {child.type for child in inline} <= {"text", "text_special"}
    assert not any("html" in token.type for token in tokens)
    assert any(HOSTILE in "".join(child.content for child in token.children or ()) for token in tokens)


def test_before_the_first_trial_the_note_says_what_is_searched(desk):
    desk.create(about=HOSTILE)
    board_of(desk)[0].draw()
    note = get_note(desk.stored())
    assert graphs(desk) == {}
    assert "## What was searched" in note
    assert "sentence-polarity" in note
    assert "allocsearch resume mine" in note


def test_graphs_are_replaced_and_not_piled_up(desk):
    begun(desk, trials=4)
    drawing, _ = board_of(desk)
    drawing.draw()
    before = graphs(desk)
    Catalog(desk.url).retarget("mine", 5)
    toy.finish(desk.open())
    drawing._due = 0.0
    drawing.refresh()
    assert sorted(graphs(desk)) == sorted(before)
    assert graphs(desk)["allocsearch-budget"] != before["allocsearch-budget"]


def test_what_a_user_wrote_in_the_note_is_kept(desk):
    begun(desk, trials=1)
    stored = desk.stored()
    save_note(stored, "my own words")
    drawing, _ = board_of(desk)
    for words in ("my own words", "other words"):
        drawing._is_stale = True
        drawing.draw()
        note = get_note(desk.stored())
        assert note.count("# Study mine") == 1
        assert note.rstrip().endswith(words)
        save_note(desk.stored(), note.replace("my own words", "other words"))


def test_it_draws_seldom_and_only_what_is_new(desk, monkeypatch):
    begun(desk, trials=1)
    shown, now = [], [0.0]
    monkeypatch.setattr(Catalog, "display", lambda *args: (shown.append(sorted(args[2])), now.__setitem__(0, now[0] + 2.0)))
    drawing, _ = board_of(desk, clock=lambda: now[0])
    drawing.draw()
    drawing.draw()
    assert len(shown) == 1, "nothing has happened since"
    for seconds in (1.0, 50.0, 48.0):
        now[0] += seconds
        drawing.refresh()
    assert len(shown) == 1, "two seconds of drawing are worth a hundred of rest"
    now[0] += 2.0
    drawing.refresh()
    assert shown[1:] == [[]]


def test_a_failure_to_draw_is_told_once_and_made_up_for(desk, monkeypatch):
    begun(desk, trials=1)
    drawing, said = board_of(desk)
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "display", lambda *_: 1 / 0)
        for _ in range(3):
            drawing._due = 0.0
            drawing.refresh()
    assert len(said) == 1
    assert "ZeroDivisionError" in said[0]
    drawing._due = 0.0
    drawing.refresh()
    assert "allocsearch-front" in graphs(desk)


def test_without_the_dashboard_nothing_is_drawn(desk, monkeypatch):
    monkeypatch.setattr(dashboard_content, "available", lambda: False)
    begun(desk, trials=1)
    drawing, said = board_of(desk)
    drawing.refresh()
    assert said == []
    assert get_note(desk.stored()) == ""


def test_companions_say_what_they_are(desk):
    desk.create()
    catalog = Catalog(desk.url)
    for kind in get_args(Companion):
        catalog.open_companion("mine", kind, desk.spec, toy.proposals_of(desk.spec), {})
        assert "belongs to the study `mine`" in get_note(toy.Desk.stored(replace(desk, name=f"mine/{kind}")))


def test_a_driver_keeps_it_up_to_date_while_it_searches(write_study, tmp_path, monkeypatch):
    monkeypatch.setattr(board, "_LEAST_PAUSE", 0.0)
    monkeypatch.setattr(board, "_REST", 0)
    file = write_study(tmp_path / "tiny.yaml", trials=3)
    options = Options(f"sqlite:///{tmp_path}/studies.db", artifacts=tmp_path / "artifacts", inline=True)
    desk, shown = toy.Desk(options.storage, "tiny"), []
    with driver.start(spec.load(str(file)), options=options) as running:
        for trial in running:
            shown.append(sum(len(trace["x"]) for trace in graphs(desk)["allocsearch-budget"]["data"]))
            assert f"{trial.number + 1} finished" in get_note(desk.stored())
    assert shown == [1, 2, 3]
    desk.close()


OTHER, MINE = 1, 2
"""Optuna's numbers of the two studies."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory, write_study):
    """The database of an empty study and of a real one, which was trained, confirmed and drawn by its own driver."""
    folder = tmp_path_factory.mktemp("shown")
    url = f"sqlite:///{folder}/studies.db"
    toy.Desk(url, "other").create()
    proxy = {"train_rows": 32, "search_rows": 24, "test_rows": 24, "batch_size": 8, "dtype": "float32", "rungs": [1, 2]}
    confirmation = {"candidates": 1, "seeds": 1, "random_trials": 0}
    file = write_study(folder / "mine.yaml", name="mine", about=HOSTILE, proxy=proxy, confirmation=confirmation)
    allocsearch.run(str(file), trials=3, storage=url, artifacts=folder / "artifacts", inline=True, quiet=True)
    return url


@contextmanager
def foreign_page():
    """The address of an empty page that another server on this machine shows."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


ASK = "([address, options]) => fetch(address, options).then((answer) => answer.status, () => 'refused')"
DATA = "(place) => Object.fromEntries(place.closest('.js-plotly-plot').data.map((trace) => [trace.name, trace.y]))"
SIMPLE = {"method": "POST", "mode": "no-cors", "headers": {"Content-Type": "text/plain"}, "body": "{}"}


def test_a_browser_shows_graphs_and_note_and_lets_no_foreign_page_in(shown, visit):
    with serving(shown) as address, foreign_page() as foreign:
        page = visit(f"{address}/dashboard/studies/{MINE}")
        for name in ("front", "capacity", "dimensions", "rungs", "budget"):
            page.locator(f"[id='user-defined-plot:allocsearch-{name}'] .main-svg").first.wait_for()
        assert page.get_by_text("WebGL is not supported").count() == 0
        page.locator("[id='user-defined-plot:allocsearch-capacity'] .heatmaplayer image").wait_for(state="attached")
        drawn = page.locator("[id='user-defined-plot:allocsearch-front']").evaluate(DATA)
        page = visit(f"{address}/dashboard/studies/{MINE}/note")
        page.get_by_role("heading", name="How to read this dashboard").wait_for()
        page.get_by_text(HOSTILE).first.wait_for()
        page.get_by_text("On the test rows: accuracy").first.wait_for()
        assert page.locator("img[src='x']").count() == 0
        assert page.evaluate(ASK, [f"{address}/api/studies/{MINE}", {"method": "DELETE"}]) == 403, "for looking only"
        page = visit(foreign)
        assert page.evaluate(ASK, [f"{address}/api/studies/{MINE}", {"method": "DELETE"}]) == "refused"
        page.evaluate(ASK, [f"{address}/api/studies/{MINE}/rename", SIMPLE])
        assert ("POST", 403) in page.answers
    catalog = Catalog(shown)
    assert catalog.names() == ["mine", "other"]
    assert drawn["front"] == [point.accuracy for point in catalog.front("mine")]
    assert {"baselines", "confirmed, test rows"} <= drawn.keys()


def test_with_leave_to_write_a_browser_can_from_its_own_pages_only(shown, visit):
    with serving(shown, writable=True) as address, foreign_page() as foreign:
        page = visit(foreign)
        assert page.evaluate(ASK, [f"{address}/api/studies/{OTHER}", {"method": "DELETE"}]) == "refused"
        page.evaluate(ASK, [f"{address}/api/studies/{OTHER}/rename", SIMPLE])
        assert ("POST", 403) in page.answers
        assert Catalog(shown).names() == ["mine", "other"]
        page = visit(f"{address}/dashboard")
        assert page.evaluate(ASK, [f"{address}/api/studies/{OTHER}", {"method": "DELETE"}]) == 204
    assert Catalog(shown).names() == ["mine"]
