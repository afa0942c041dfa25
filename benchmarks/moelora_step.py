"""What one training step costs with routed experts, against PEFT's LoRA of the same total rank and the frozen base alone.

Process CPU time per step on one thread, variants interleaved, so that what else the machine does hits all alike. `saved` is what autograd
keeps for the backward pass, without parameters.

    OMP_NUM_THREADS=1 python benchmarks/moelora_step.py [--dtype bfloat16] [--rounds 10]
"""

import argparse
import statistics
import time

import peft
import torch
import transformers

from allocsearch.moelora import MoeLoraConfig

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def base_model(dtype, hidden, layers):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=1000, hidden_size=hidden, intermediate_size=hidden * 11 // 4, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=4, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(dtype)


def variants(dtype, hidden, layers):
    def experts(allocation, **settings):
        return peft.get_peft_model(base_model(dtype, hidden, layers), MoeLoraConfig(allocation=f"{allocation}*{layers}", **settings))

    def lora(**settings):
        config = peft.LoraConfig(r=32, lora_alpha=64, target_modules=TARGETS)
        return peft.get_peft_model(base_model(dtype, hidden, layers), config, **settings)

    base = base_model(dtype, hidden, layers).requires_grad_(False)
    base.get_input_embeddings().weight.requires_grad_(True)  # forward and input gradients only: the limit
    return {
        "input gradients": base,
        "LoRA r32": lora(),
        "LoRA r32, base's type": lora(autocast_adapter_dtype=False),
        "1 expert r32": experts("32"),
        "4 experts r8": experts("4x8", aux_loss_weight=0.0),
        "4 experts r8, balanced": experts("4x8"),
        "dense 4 experts r8": experts("4x8", router="dense"),
        "16+8+4+4, balanced": experts("16+8+4+4"),
        "8 experts r4, balanced": experts("8x4"),
        "MoA soft": experts("q:8,k:8,v:8,o:8,down:8,parallel:16", router="sigmoid"),
        "MoA sparse": experts("q:8,k:8,v:8,o:8,down:8,parallel:16", router="threshold"),
        "MoA soft, prompts": experts("q:8,k:8,v:8,o:8,down:8,parallel:16,prompt:10", router="sigmoid"),
    }


def saved_bytes(model, inputs):
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(**inputs)
    return sum(size for size, _ in saved.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = variants(getattr(torch, arguments.dtype), arguments.hidden, arguments.layers)
    models = {name: model.train() for name, model in models.items() if arguments.only in name or name.startswith("LoRA")}
    ids = torch.randint(3, 1000, (4, 128))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    optimizers = {
        name: torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, foreach=True) for name, model in models.items()
    }
    times = {name: [] for name in models}
    for number in range(arguments.rounds + 2):
        for name, model in models.items():
            started = time.process_time()
            model(**inputs).loss.backward()
            if name != "input gradients":
                optimizers[name].step()
            optimizers[name].zero_grad()
            if number >= 2:
                times[name].append(time.process_time() - started)
    reference = statistics.median(times["LoRA r32"])
    saved = {name: saved_bytes(model, inputs) for name, model in models.items()}
    print(f"{arguments.dtype}, hidden {arguments.hidden}, {arguments.layers} layers, 4 × 128 tokens, {arguments.rounds} rounds")
    print(f"{'':26}{'ms':>8}{'× LoRA':>8}{'saved MB':>10}{'× LoRA':>8}")
    for name, values in times.items():
        median = statistics.median(values)
        share = saved[name] / saved["LoRA r32"]
        print(f"{name:26}{median * 1e3:8.0f}{median / reference:8.2f}{saved[name] / 1e6:10.1f}{share:8.2f}")


if __name__ == "__main__":
    main()
