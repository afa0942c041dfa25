"""Studies and spaces as YAML: each mistake is found with its file, line and remedy; a valid spec keeps its identity."""
# ruff: noqa: E501 - a table reads one case a line

import copy
import json
import os
import subprocess
import sys

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from allocsearch import spec
from allocsearch.core.errors import InputError
from allocsearch.spec import StudySpec
from tests import strategies as _  # noqa: F401 - loads the Hypothesis profile

STUDY = """\
schema: allocsearch/study/v1
name: trial-run
model: toy
task:
  name: reviews
  path: rows.jsonl
  template: "Review: {text}"
  label_column: label
  choices: [bad, good]
space:
  schema: allocsearch/space/v1
  name: mine
  parts:
    attn:
      rank:
        choices: [0, 4, 8]
        share: {groups: 2}
    ffn:
      experts:
        choices: [1, 2]
      rank:
        choices: [2, 4]
        order: ascending
budget: 8M-params
trials: 20
routing:
  router: dense
  top_k: 2
warm_starts: [uniform,
  lora]
proxy:
  train_rows: 64
  seeds: [0, 1]
limits:
  max_attempts: 2
"""


@pytest.fixture
def write(tmp_path):
    def to(text, name="study.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return to


def test_the_example_is_valid(write, tmp_path):
    loaded = spec.load(str(write(STUDY)))
    assert (loaded.name, loaded.trials, loaded.routing.router) == ("trial-run", 20, "dense")
    assert loaded.task.path == str(tmp_path / "rows.jsonl")
    template = loaded.space.template()
    assert [part.selector for part in template.parts] == ["attn", "ffn"]
    assert template.parts[1].rank.order == "ascending"


MISTAKES = {
    # what it is: (the text, what replaces it, the line of the mistake, what the error says)
    "a key at the top": ("model: toy", "modle: toy", 3, "`modle` is not a key here: did you mean `model`?"),
    "a key that is like none": ("limits:", "zzz:", 34, "`zzz` is not a key here: known keys: schema, name, about, model"),
    "a key of the proxy": ("train_rows", "train_row", 32, "`proxy.train_row` is not a key here: did you mean `train_rows`?"),
    "a key of the task": ("template:", "templte:", 7, "`task.templte` is not a key here: did you mean `template`?"),
    "a key of the routing": ("top_k", "topk", 28, "`routing.topk` is not a key here: did you mean `top_k`?"),
    "a key of the limits": ("max_attempts", "max_attempt", 35, "did you mean `max_attempts`?"),
    "a key of the space": ("  parts:", "  part:", 13, "`space.part` is not a key here: did you mean `parts`?"),
    "a key of a part": ("      experts:", "      expert:", 19, "`space.parts.ffn.expert` is not a key here: did you mean `experts`?"),
    "a key of an axis": ("choices: [0, 4, 8]", "choice: [0, 4, 8]", 16, "`space.parts.attn.rank.choice` is not a key here: did you mean `choices`?"),
    "a key of the sharing": ("groups: 2", "group: 2", 17, "`space.parts.attn.rank.share.group` is not a key here: did you mean `groups`?"),
    "a part's name": ("    attn:", "    atn:", 14, "must be one of all, attn, ffn, q, k, v, qkv, o"),
    "text for a number": ("trials: 20", "trials: many", 25, "`trials`: Input should be a valid integer (got 'many')"),
    "a quoted number": ("trials: 20", "trials: '20'", 25, "`trials`: Input should be a valid integer (got '20')"),
    "YAML's yes for a number": ("trials: 20", "trials: yes", 25, "`trials`: Input should be a valid integer (got True)"),
    "a fraction for a number": ("trials: 20", "trials: 2.5", 25, "`trials`: Input should be a valid integer (got 2.5)"),
    "nothing for a number": ("trials: 20", "trials:", 25, "`trials`: Input should be a valid integer"),
    "no trials": ("trials: 20", "trials: 0", 25, "`trials`: Input should be greater than or equal to 1 (got 0)"),
    "a number without end": ("trials: 20", "trials: .inf", 25, "`trials`: Input should be a valid integer"),
    "a number of a thousand digits": ("trials: 20", "trials: -0x" + "F" * 5000, 25, "`trials`: Input should be greater than or equal to 1"),
    "a number for a mapping": ("limits:\n  max_attempts: 2", "limits: 5", 34, "`limits`: Input should be a valid dictionary"),
    "a number for a list": ("choices: [2, 4]", "choices: 4", 22, "`space.parts.ffn.rank.choices`: Input should be a valid tuple (got 4)"),
    "a word in a list": ("seeds: [0, 1]", "seeds: [0, x]", 33, "`proxy.seeds.1`: Input should be a valid integer (got 'x')"),
    "an unknown objective": ("trials: 20", "objective: fast", 25, "`objective`: Input should be 'pareto', 'accuracy' or 'nll' (got 'fast')"),
    "an unknown router": ("router: dense", "router: soft", 27, "`routing.router`: Input should be 'topk', 'dense', 'sigmoid' or 'threshold' (got 'soft')"),
    "no expert per token": ("top_k: 2", "top_k: 0", 28, "`routing.top_k`: "),
    "an unknown target": ("top_k: 2", "targets: [mlp]", 26, "a target must be one of attn, ffn, q"),
    "a number for the budget": ("budget: 8M-params", "budget: 8", 24, "`budget`: Input should be a valid string (got 8)"),
    "a budget without a unit": ("budget: 8M-params", "budget: 8M", 24, "`budget`: a budget must be like 50M-params, 8M-active or 1.5%"),
    "an empty budget": ("budget: 8M-params", "budget: 0-params", 24, "`budget`: a budget must have at least one limit"),
    "an unknown warm start": ("  lora]", "  lorra]", 30, "`warm_starts.1`: a warm start must be one of uniform, mola-2468"),
    "no share": ("trials: 20", "ladder: []", 25, "`ladder`: "),
    "a share above one": ("trials: 20", "ladder: [0.5, 2]", 25, "`ladder.1`: Input should be less than or equal to 1 (got 2)"),
    "seeds that repeat": ("seeds: [0, 1]", "seeds: [1, 1]", 31, "`seeds` must be distinct"),
    "rungs that fall": ("seeds: [0, 1]", "rungs: [9, 3]", 31, "`rungs` must be rising training steps, but got [9, 3]"),
    "halving without rungs": ("trials: 20", "scheduler: {kind: halving}", 25, "`scheduler`: halving needs `proxy.rungs` below the proxy's 4 steps, but got []: for instance [2]"),
    "halving by a share of one": ("trials: 20", "scheduler: {kind: halving, eta: 1}", 25, "`scheduler.eta`: Input should be greater than or equal to 2 (got 1)"),
    "an unknown scheduler": ("trials: 20", "scheduler: {kind: asha}", 25, "`scheduler.kind`: Input should be 'none' or 'halving' (got 'asha')"),
    "choices that fall": ("choices: [2, 4]", "choices: [4, 2]", 21, "`choices` must be distinct whole numbers >= 0 in rising order, but got [4, 2]"),
    "a negative choice": ("choices: [2, 4]", "choices: [-2, 4]", 22, "`space.parts.ffn.rank.choices.0`: "),
    "rank 0 beside experts": ("choices: [2, 4]", "choices: [0, 4]", 13, "`rank >= 1` must hold where `experts` is searched"),
    "all beside a group": ("    attn:", "    all:", 13, "`all` excludes attn and ffn"),
    "two ways to share": ("{groups: 2}", "{groups: 2, tie: 3}", 15, "`share` must be `model`, `groups: n` or `tie: n`"),
    "a way of sharing that there is not": ("{groups: 2}", "layer", 17, "`space.parts.attn.rank.share`: "),
    "a name with a space": ("name: trial-run", "name: trial run", 2, "`name`: String should match pattern"),
    "a missing key": ("model: toy\n", "", None, "the key `model` must be given, but it is missing"),
    "a missing key below": ("      rank:\n        choices: [0, 4, 8]\n        share: {groups: 2}\n", "      per_expert: false\n", 14,
                            "the key `space.parts.attn.rank` must be given, but it is missing"),
    "another schema": ("schema: allocsearch/study/v1", "schema: allocsearch/study/v2", 1, "`schema`: Input should be 'allocsearch/study/v1'"),
    "a task without rows": ("  path: rows.jsonl\n", "", 4, "a task must give `hub` or `path`, or be one of sentence-polarity"),
    "a task of two kinds": ("  label_column: label", "  label_column: label\n  answer_column: x", 4, "either a `label_column` (choices) or an `answer_column`"),
    "a template without a column": ('"Review: {text}"', "Review", 4, "a template must show at least one column"),
}  # fmt: skip


@pytest.mark.parametrize(("rungs", "first", "says"), [
    ("[4, 9]", 4, "halving needs `proxy.rungs` below the proxy's 4 steps, but got [4, 9]: for instance [2]"),
    ("[1, 3, 9]", 9, "`first_rung` must be one of the rungs 1, 3 below the proxy's 4 steps, but got 9: take the first whose ranks predict the end"),
    ("[1, 3]", "~", "`first_rung` must be one of the rungs 1, 3 below the proxy's 4 steps, but got None: "),
])  # fmt: skip
def test_halving_wants_a_first_rung_that_is_reached(write, rungs, first, says):
    changed = STUDY.replace("seeds: [0, 1]", f"rungs: {rungs}").replace("trials: 20", f"scheduler: {{kind: halving, first_rung: {first}}}")
    with pytest.raises(InputError) as caught:
        spec.load(str(write(changed)))
    assert f", line 25: `scheduler`: {says}" in str(caught.value)


def test_halving_is_off_unless_asked_for(write):
    assert spec.load(str(write(STUDY))).scheduler.kind == "none"
    on = STUDY.replace("seeds: [0, 1]", "rungs: [1, 3]").replace("trials: 20", "scheduler: {kind: halving, first_rung: 3}")
    found = spec.load(str(write(on)))
    assert (found.scheduler.eta, found.scheduler.first_rung) == (3, 3)
    assert found.digest != spec.load(str(write(STUDY))).digest


@pytest.mark.parametrize(("old", "new", "line", "says"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_found_with_its_line_and_remedy(write, old, new, line, says):
    assert STUDY.count(old) == 1
    path = write(STUDY.replace(old, new))
    with pytest.raises(InputError) as caught:
        spec.load(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}: " if line else f"{path}: ")
    assert says in message
    assert "\n" not in message
    assert len(message) < 700


def test_a_mistake_in_a_space_names_the_spaces_own_file(write, tmp_path):
    space = "schema: allocsearch/space/v1\nname: mine\nparts:\n  all:\n    rank: {choices: [4, 2]}\n"
    study = "schema: allocsearch/study/v1\nname: s\nmodel: toy\ntask: sentence-polarity\nbudget: 8M-params\nspace: mine.yaml\n"
    path = write(space, "mine.yaml")
    with pytest.raises(InputError) as caught:
        spec.load(str(write(study)))
    assert str(caught.value) == (
        f"{path}, line 5: `parts.all.rank`: `choices` must be distinct whole numbers >= 0 in rising order, but got [4, 2]"
    )
    with pytest.raises(InputError, match=r"mine\.yaml, line 4: `routing\.top_k`"):
        spec.load_space(str(write(space.replace("parts:", "routing:\n  top_k: 0\nparts:").replace("[4, 2]", "[2, 4]"), "mine.yaml")))


def test_unknown_names_come_with_the_nearest(write):
    with pytest.raises(InputError, match=r"studies: 'quickstrat' must be a file or one of .*did you mean 'quickstart'"):
        spec.load("quickstrat")
    with pytest.raises(InputError, match=r"--space: 'hilo-monoton' must be a file .*did you mean 'hilo-monotone'"):
        spec.load("quickstart", {"space": "hilo-monoton"})
    with pytest.raises(InputError, match=r"search_spaces: 'molla' .*did you mean 'mola'"):
        spec.load_space("molla")
    with pytest.raises(InputError, match=r"--task: 'nowhere.yaml' must be a file that is there, but it is not"):
        spec.load("quickstart", {"task": "nowhere.yaml"})


@pytest.mark.parametrize("key", ["space", "task", "model"])
@pytest.mark.parametrize("value", ["~no-such-user-here/x.yaml", "x" * 300, "a\0b.yaml"])
def test_paths_that_no_system_takes_are_input_errors_or_names(key, value):
    try:
        loaded = spec.load("quickstart", {key: value})
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert key in ("model", "task")
        assert value in (loaded.model, loaded.task.name)


PLACES = ["{outside}", "../outside", "link", "~/outside", "sub/../../outside"]


@pytest.fixture
def named(tmp_path, write, monkeypatch):
    """Loads a study that names a place for one of its parts, where there is a folder beside the study's own."""
    outside, home = tmp_path / "outside", tmp_path / "home"
    for folder in (outside, home, home / "sub", home / "~nobody-of-that-name"):
        folder.mkdir()
    for name in ("rows.jsonl", "task.yaml", "space.yaml"):
        (outside / name).write_text("")
    (home / "link").symlink_to(outside)
    monkeypatch.setenv("HOME", str(tmp_path))
    document = yaml.safe_load(STUDY)

    def load(key, place):
        place = place.format(outside=outside)
        part = {"model": place, "space": f"{place}/space.yaml", "task": f"{place}/task.yaml",
                "rows": {**document["task"], "path": f"{place}/rows.jsonl"},
                "test rows": {**document["task"], "test_path": f"{place}/none.jsonl"}}  # fmt: skip
        (home / "study.yaml").write_text(yaml.safe_dump({**document, key if key in document else "task": part[key]}))
        return spec.load(str(home / "study.yaml"))

    return load


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", ["rows", "test rows", "model", "task", "space"])
def test_a_study_points_out_of_its_folder_only_where_that_is_allowed(named, tmp_path, monkeypatch, key, place):
    monkeypatch.delenv("ALLOCSEARCH_FOLDERS", raising=False)
    with pytest.raises(InputError, match="must lie in its own folder or in one that ALLOCSEARCH_FOLDERS names") as caught:
        named(key, place)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("ALLOCSEARCH_FOLDERS", f"/nowhere{os.pathsep}{tmp_path}/outside")
    if key in {"task", "space"}:  # empty files: they were read
        with pytest.raises(InputError, match="the document must be a mapping"):
            named(key, place)
    else:
        named(key, place)


@pytest.mark.parametrize("place", ["~nobody-of-that-name/../../outside", "sub/loop", "a" * 5000, "a\0b"])
@pytest.mark.parametrize("key", ["rows", "model"])
def test_what_is_no_path_is_one_line_and_no_way_out(named, tmp_path, key, place):
    (tmp_path / "home" / "sub" / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"must be a path that this system knows, but .* is none: ") as caught:
        named(key, place)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_allowed_is_named_and_hides_nothing_else(named, monkeypatch):
    monkeypatch.setenv("ALLOCSEARCH_FOLDERS", "~nobody-of-that-name")
    assert spec.load("quickstart").name == "quickstart"
    assert named("rows", "sub").task.path.endswith("rows.jsonl")
    with pytest.raises(InputError, match=r"^ALLOCSEARCH_FOLDERS must name folders, but '~nobody-of-that-name' is none"):
        named("rows", "link")


def test_what_lies_with_the_study_or_on_the_command_line_is_not_confined(named, tmp_path, monkeypatch):
    monkeypatch.setenv("ALLOCSEARCH_FOLDERS", "")
    assert named("rows", "sub").task.path == str(tmp_path / "home" / "sub" / "rows.jsonl")
    assert named("model", "someone/a-hub-model").model == "someone/a-hub-model"
    outside = str(tmp_path / "outside")
    assert spec.load(str(tmp_path / "home" / "study.yaml"), {"model": outside}).model == outside


@pytest.mark.parametrize(("key", "what"), [("rows", "/rows.jsonl"), ("model", "")])
def test_the_error_says_what_to_type_to_allow_a_place_and_that_allows_it(named, tmp_path, monkeypatch, key, what):
    monkeypatch.setenv("ALLOCSEARCH_FOLDERS", "/nowhere")
    with pytest.raises(InputError, match=f"or allow it: export ALLOCSEARCH_FOLDERS=/nowhere:{tmp_path}/outside{what}$") as caught:
        named(key, "link")
    monkeypatch.setenv("ALLOCSEARCH_FOLDERS", str(caught.value).rpartition("=")[2])
    named(key, "link")
    with pytest.raises(InputError, match=r"put it there$"):  # a name that would be taken for two
        named(key, "../out:side")


def test_a_model_in_the_users_folder_is_not_taken_for_one_beside_the_study(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError,
        match=r"^model: what a study's file names lies beside it, but 'outside' lies here: give --model with run, or call from elsewhere$",
    ):
        named("model", "outside")
    study = str(tmp_path / "home" / "study.yaml")
    assert spec.load(study, {"model": "outside"}).model == str(tmp_path / "outside")


def test_a_task_may_be_a_file_of_its_own(write, tmp_path):
    write("schema: allocsearch/task/v1\nname: reviews\npath: rows.csv\ntemplate: '{text}'\nlabel_column: y\n", "reviews.yaml")
    study = "schema: allocsearch/study/v1\nname: s\nmodel: toy\ntask: reviews.yaml\nbudget: 8M-params\nspace: mola\n"
    assert spec.load(str(write(study))).task.path == str(tmp_path / "rows.csv")


def test_overrides_replace_top_level_keys_and_none_does_not():
    loaded = spec.load("quickstart", {"trials": 3, "budget": "1%", "space": "mola", "objective": "nll", "seed": None})
    assert (loaded.trials, loaded.budget, loaded.space.name, loaded.objective) == (3, "1%", "mola", "nll")
    assert loaded.seed == spec.load("quickstart").seed
    with pytest.raises(InputError, match="`trails` is not a key here: did you mean `trials`"):
        spec.load("quickstart", {"trails": 3})
    with pytest.raises(InputError, match="--budget: a budget must be like"):
        spec.load("quickstart", {"budget": "lots"})


def test_a_spaces_routing_is_the_studys_unless_it_has_its_own(write):
    space = "schema: allocsearch/space/v1\nname: mine\nparts:\n  q:\n    rank: {choices: [4]}\nrouting: {router: sigmoid}\n"
    write(space, "mine.yaml")
    study = "schema: allocsearch/study/v1\nname: s\nmodel: toy\ntask: sentence-polarity\nbudget: 8M-params\nspace: mine.yaml\n"
    assert spec.load(str(write(study))).routing.router == "sigmoid"
    assert spec.load(str(write(study + "routing: {router: dense}\n"))).routing.router == "dense"


def test_json_reads_back(write):
    loaded = spec.load(str(write(STUDY)))
    again = StudySpec.from_json(json.loads(json.dumps(loaded.to_json())), where="there")
    assert again == loaded
    assert again.digest == loaded.digest
    assert spec.diff(loaded, again) == []
    with pytest.raises(InputError, match=r"^there: `trials`: "):
        StudySpec.from_json({**loaded.to_json(), "trials": 0}, where="there")


# Each changes one thing that a study's results depend on.
CHANGES = {
    "model": "other", "revision": "main", "budget": "9M-params", "objective": "nll", "sampler": "tpe", "seed": 1,
    "routing": {"router": "topk"}, "ladder": [1.0], "warm_starts": [], "limits": {"max_attempts": 9}, "task": "sentence-polarity",
    "proxy": {"train_rows": 65, "seeds": [0, 1]},
}  # fmt: skip


def example_document():
    document = yaml.safe_load(STUDY)
    document["task"]["path"] = "/data/rows.jsonl"
    return document


def digest_of(document):
    return StudySpec.from_json(document, where="here").digest


@pytest.mark.parametrize("key", CHANGES)
def test_the_digest_changes_with_what_changes_the_results(key):
    assert digest_of({**example_document(), key: CHANGES[key]}) != digest_of(example_document())


def test_the_digest_changes_with_every_value_of_the_space_and_the_proxy():
    seen = {digest_of(example_document())}
    for part, axis, values in [("attn", "rank", [0, 4]), ("ffn", "rank", [2, 8]), ("ffn", "experts", [1, 2, 3])]:
        document = copy.deepcopy(example_document())
        document["space"]["parts"][part][axis]["choices"] = values
        seen.add(digest_of(document))
    proxy = {"train_rows": 9, "search_rows": 9, "test_rows": 9, "batch_size": 9, "epochs": 9, "learning_rate": 0.9, "warmup_share": 0.9,
             "weight_decay": 0.9, "max_grad_norm": 9, "alpha": 9, "aux_loss_weight": 0.9, "max_tokens": 9, "max_new_tokens": 9,
             "dtype": "float32", "seeds": [9], "rungs": [9]}  # fmt: skip
    switches = {key: not field.default for key, field in spec.ProxySpec.model_fields.items() if isinstance(field.default, bool)}
    assert {*proxy, *switches} == set(spec.ProxySpec.model_fields)
    proxy |= switches
    for key, value in proxy.items():
        document = copy.deepcopy(example_document())
        document["proxy"][key] = value
        seen.add(digest_of(document))
    assert len(seen) == 1 + 3 + len(proxy)


def test_the_digest_does_not_change_with_names_descriptions_and_the_number_of_trials():
    document = copy.deepcopy(example_document())
    document |= {"name": "another", "about": "words", "trials": 999}
    document["space"]["about"] = "more words"
    assert digest_of(document) == digest_of(example_document())


@pytest.mark.parametrize("key", ["checkpoint_seconds", "max_hours", "max_gpu_hours", "max_tokens"])
def test_the_digest_does_not_change_with_limits_that_change_no_result(key):
    document = example_document()
    document["limits"] = {**document.get("limits", {}), key: 7}
    assert digest_of(document) == digest_of(example_document())


def test_the_digest_does_not_change_with_what_is_said_by_default():
    document = copy.deepcopy(example_document())
    document["proxy"]["batch_size"] = spec.ProxySpec().batch_size
    document["sampler"] = "random"
    assert digest_of(document) == digest_of(example_document())


def test_the_digest_is_the_same_in_every_process():
    """A resume compares it with the one in the database."""
    code = "import sys, json; from allocsearch.spec import StudySpec; print(StudySpec.from_json(json.load(sys.stdin), where='x').digest)"
    for hash_seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-c", code], input=json.dumps(example_document()), capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )  # fmt: skip
        assert ran.stdout.strip() == digest_of(example_document())


def test_a_difference_is_told_key_by_key():
    document = example_document()
    other = copy.deepcopy(document)
    other |= {"budget": "9M-params"}
    other["proxy"]["train_rows"] = 65
    read = [StudySpec.from_json(d, where="here") for d in (document, other)]
    assert spec.diff(*read) == ["budget: 8M-params → 9M-params", "proxy.train_rows: 64 → 65"]


def paths_into(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_into(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from paths_into(inner, (*path, i))


PATHS = sorted(paths_into(yaml.safe_load(STUDY)), key=str)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates(), st.binary(max_size=3),
    st.sampled_from([10**4000, -1, 0, "1e3", "~", "8M-params", "all", "topk", "2r"]),
)  # fmt: skip
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=250)
@given(st.sampled_from(PATHS), values)
@example(("trials",), 10**4000)
@example(("space", "parts"), {"": {}})
@example(("space", "parts"), {"\n": None})
@example(("routing", "top_k"), 10**4000)
@example(("space", "parts", "attn", "rank", "choices"), [10**4000])
@example(("proxy", "seeds"), [[[]]])
def test_any_value_anywhere_is_valid_or_an_input_error(write, path, value):
    """A valid study with one value replaced, written and read as YAML."""
    document = yaml.safe_load(STUDY)
    if path:
        inner = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
    else:
        document = value
    file = write(yaml.safe_dump(document, allow_unicode=True))
    try:
        loaded = spec.load(str(file))
    except InputError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 2000
    else:
        assert StudySpec.from_json(json.loads(json.dumps(loaded.to_json())), where="there") == loaded
        loaded.space.template()
