"""What one training step costs with routed experts: forward, backward and AdamW on 4 × 128 tokens.

Beside it the limit (forward and input gradients of the frozen base), PEFT's LoRA of the same total rank, the published loops, and the
package moe-peft in an environment of its own. CPU time of one thread, variants interleaved.

    OMP_NUM_THREADS=1 python benchmarks/moelora_step.py [--hidden 256] [--dtype bfloat16] [--rounds 6] [--moe-peft-python PATH]
"""

import argparse
import copy
import json
import subprocess
from pathlib import Path

import peft
import torch
import transformers
from moelora_loops import MoaLoop, MolaLoop, as_loops
from moelora_timing import interleaved, peak_bytes, saved_bytes

from allocsearch.moelora import MoeLoraConfig

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LIMIT, LORA = "frozen forward and input gradients", "PEFT LoRA r32"
MOA = "q:8,k:8,v:8,o:8,down:8,parallel:16"


def base_model(case):
    """A model of its own on weights that all variants of a case share: they are frozen."""
    key = json.dumps(case)
    if key not in _bases:
        _bases.clear()
        _bases[key] = loaded(case).requires_grad_(False)
    return copy.deepcopy(_bases[key], memo={id(p): p for p in _bases[key].parameters()})


_bases = {}


def loaded(case):
    torch.manual_seed(0)
    if case.get("folder"):
        model = transformers.AutoModelForCausalLM.from_pretrained(case["folder"], dtype=getattr(torch, case["dtype"]))
    else:
        hidden, layers = case["hidden"], case["layers"]
        config = transformers.LlamaConfig(
            vocab_size=1000, hidden_size=hidden, intermediate_size=hidden * 11 // 4, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=4, pad_token_id=0,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config).to(getattr(torch, case["dtype"]))
    return model


def adapted(case, allocation, **settings):
    base = base_model(case)
    config = MoeLoraConfig(allocation=f"{allocation}*{base.config.num_hidden_layers}", target_modules=TARGETS, **settings)
    return peft.get_peft_model(base, config)


def variants(case):
    """Functions that build a model, by name."""

    def limit():
        base = base_model(case)
        base.enable_input_require_grads()
        return base

    lora = peft.LoraConfig(r=32, lora_alpha=64, target_modules=TARGETS)
    built = {
        LIMIT: limit,
        LORA: lambda: peft.get_peft_model(base_model(case), lora),
        "PEFT LoRA r32, adapter in the base's type": lambda: peft.get_peft_model(base_model(case), lora, autocast_adapter_dtype=False),
        "ours, 1 expert r32": lambda: adapted(case, "32"),
        "ours, 4 experts r8": lambda: adapted(case, "4x8"),
        "ours, 16+8+4+4": lambda: adapted(case, "16+8+4+4"),
        "ours, 8 experts r4": lambda: adapted(case, "8x4"),
        "MoLA's loop, 4 experts r8": lambda: as_loops(adapted(case, "4x8", aux_loss_weight=0.0), MolaLoop),
        "ours, MoA soft": lambda: adapted(case, MOA, router="sigmoid"),
        "ours, MoA sparse": lambda: adapted(case, MOA, router="threshold"),
        "MoA's loop, soft": lambda: as_loops(adapted(case, MOA, router="sigmoid"), MoaLoop),
        "ours, MoA soft with prompts": lambda: adapted(case, f"{MOA},prompt:10", router="sigmoid"),
    }
    chosen = case.get("only")
    if case["dtype"] == "float32":
        del built["PEFT LoRA r32, adapter in the base's type"]
    return {name: build for name, build in built.items() if chosen is None or name in chosen}


class Foreign:
    """A step of moe-peft, run by another Python that times itself."""

    def __init__(self, python, case, method):
        wanted = {"experts": 4, "rank": 8 if method == "mola" else 32, "hidden": 0, "layers": 0, **case, "method": method}
        script = Path(__file__).with_name("moelora_moe_peft.py")
        self.process = subprocess.Popen(
            [python, str(script), json.dumps(wanted)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.versions = self._read()

    def _read(self):
        return json.loads(self.process.stdout.readline())

    def __call__(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(case, rounds, moe_peft_python=None):
    """One row per variant: seconds of a step, bytes that autograd saves, and the peak of memory above what was there before."""
    ids = torch.randint(3, 1000, (4, 128), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    models = {name: build().train() for name, build in variants(case).items()}

    def step_of(model):
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, foreach=True) if trained else None

        def step():
            model(**inputs, use_cache=False).loss.backward()
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()

        return step

    steps = {name: step_of(model) for name, model in models.items()}
    foreign = {}
    if moe_peft_python:
        foreign = {
            "moe-peft LoRA r32": Foreign(moe_peft_python, case, "lora"),
            "moe-peft MoLA, 4 experts r8": Foreign(moe_peft_python, case, "mola"),
        }
    seconds = interleaved({**steps, **foreign}, rounds)
    versions = next((step.versions for step in foreign.values()), None)
    for step in foreign.values():
        step.close()
    rows = []
    for name, value in seconds.items():
        row = {"variant": name, "seconds": value}
        if name in models:
            # First the peak: after a pass that is not followed by its backward pass, the next step starts by freeing that pass.
            row["peak_bytes"] = peak_bytes(steps[name])
            row["saved_bytes"] = saved_bytes(lambda name=name: models[name](**inputs, use_cache=False), models[name].parameters())
        rows.append(row)
    return {"case": case, "rounds": rounds, "moe_peft": versions, "rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--moe-peft-python", help="Python of an environment that has moe-peft")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    case = {"hidden": arguments.hidden, "layers": arguments.layers, "dtype": arguments.dtype}
    found = measure(case, arguments.rounds, arguments.moe_peft_python)
    lora = next(row["seconds"] for row in found["rows"] if row["variant"] == LORA)
    for row in found["rows"]:
        saved = row.get("saved_bytes", 0) / 1e6
        print(f"{row['variant']:44}{row['seconds'] * 1e3:8.0f} ms{row['seconds'] / lora:8.2f} × LoRA{saved:10.1f} MB saved")


if __name__ == "__main__":
    main()
