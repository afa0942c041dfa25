"""Expert kinds from plug-ins: the documented example, found by its entry point as if it were installed."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "allocsearch-glu"

USES = """
import sys, peft, torch
from transformers import LlamaConfig, LlamaForCausalLM
from allocsearch import Allocation, Budget, Routing, cost, model_shape
from allocsearch.core.errors import InputError
from allocsearch.formats.moa import export as moa_flags
from allocsearch.formats.recipe import Recipe
from allocsearch.moelora import MoeLoraConfig
from allocsearch.spec import SpaceSpec

torch.manual_seed(0)
config = LlamaConfig(vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
base = LlamaForCausalLM(config).eval()
tokens = torch.arange(12).reshape(2, 6)
plain = base(tokens).logits
text, routing = "q:4,parallel:3,glu:8+2 glu:4", Routing("sigmoid")
shape = model_shape(config)

def adapted():
    # Without a seed of the caller's: each expert has its own.
    torch.manual_seed(torch.seed() % 1000)
    return peft.get_peft_model(LlamaForCausalLM.from_pretrained(sys.argv[1]), MoeLoraConfig(allocation=text, router="sigmoid")).eval()

base.save_pretrained(sys.argv[1])
model, again = adapted(), adapted()
trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
assert cost(Allocation.parse(text), shape, routing).trainable == sum(p.numel() for p in trainable.values())
assert any(".moelora_beside." in name for name in trainable)
assert all(torch.equal(p, dict(again.named_parameters())[name]) for name, p in trainable.items())
torch.testing.assert_close(model(tokens).logits, plain)

optimiser = torch.optim.SGD(trainable.values(), lr=0.5)
for _ in range(2):  # the first step moves the zeroed matrices, and only then do the others get a gradient
    optimiser.zero_grad()
    model(tokens, labels=tokens).loss.backward()
    optimiser.step()
assert all(p.grad.abs().sum() > 0 for name, p in trainable.items() if ".moelora_beside." in name)
trained = model(tokens).logits
assert not torch.allclose(trained, plain)
model.save_pretrained(sys.argv[2])
loaded = peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(sys.argv[1]), sys.argv[2]).eval()
assert torch.equal(loaded(tokens).logits, trained)

axis = {"choices": [0, 1, 2, 4, 8], "share": {"groups": 2}}
template = SpaceSpec(schema="allocsearch/space/v1", name="s", parts={"q": {"rank": axis}, "glu": {"rank": axis}}).template()
space = template.bind(shape, routing)
found = space.project(space.decode(space.largest), Budget(max_trainable=2000))
assert found.layers[1].sizes("glu"), found
assert cost(found, shape, routing).trainable <= 2000

try:
    moa_flags(Recipe(Allocation.parse(text), shape, routing, "2r", "base"))
except InputError as error:
    assert "'glu'" in str(error), error
else:
    raise AssertionError("MoA's trainer was given a kind that it does not know")
print("fine")
"""


def installed(folder, entry_points):
    """The environment of a process that finds a distribution of that name, without installing anything."""
    info = folder / "allocsearch_glu-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: allocsearch-glu\nVersion: 0.1.0\n")
    points = "".join(f"{name} = {value}\n" for name, value in entry_points)
    (info / "entry_points.txt").write_text(f"[allocsearch.experts]\n{points}")
    paths = [str(folder), str(EXAMPLE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def test_the_example_is_counted_trained_saved_and_searched(tmp_path):
    points = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]["allocsearch.experts"]
    command = [sys.executable, "-W", "ignore", "-c", USES, str(tmp_path / "base"), str(tmp_path / "adapter")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=installed(tmp_path, points.items()))
    assert (done.returncode, done.stdout.strip().splitlines()[-1:]) == (0, ["fine"]), done.stderr


def test_a_plug_in_that_does_not_load_or_takes_a_name_is_one_line(tmp_path):
    for number, (points, says) in enumerate(
        [
            ([("glu", "allocsearch_gone:GLU")], "plug-in 'allocsearch-glu' must load"),
            ([("swiglu", "allocsearch_glu:GLU")], "must be an ExpertKind of that name"),
            ([("glu", "allocsearch_glu:GLU")] * 2, "must come from one plug-in"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-m", "allocsearch", "spaces"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=installed(folder, points))
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert says in line
