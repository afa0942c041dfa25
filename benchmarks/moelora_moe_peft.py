"""Times training steps of the `moe-peft` package in an environment of its own: one line in, one line with CPU seconds out.

PYTHON benchmarks/moelora_moe_peft.py '{"hidden": 256, "layers": 8, "dtype": "float32", "method": "mola", "experts": 4, "rank": 8}'
"""

import json
import sys
import tempfile
import time

import torch
import transformers

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main():
    wanted = json.loads(sys.argv[1])
    talk, sys.stdout = sys.stdout, sys.stderr  # what the package prints goes elsewhere
    import moe_peft

    torch.set_num_threads(1)
    torch.manual_seed(0)
    hidden, layers = wanted["hidden"], wanted["layers"]
    config = transformers.LlamaConfig(
        vocab_size=1000, hidden_size=hidden, intermediate_size=hidden * 11 // 4, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=4, pad_token_id=0,
    )  # fmt: skip
    folder = wanted.get("folder")
    if folder is None:
        folder = tempfile.mkdtemp()
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    model = moe_peft.LLMModel.from_pretrained(folder, device="cpu", load_dtype=getattr(torch, wanted["dtype"]))
    settings = {"task_name": "casual", "r": wanted["rank"], "lora_alpha": 2 * wanted["rank"], "lora_dropout": 0.05}
    settings |= {"target_modules": TARGETS}
    if wanted["method"] == "mola":
        settings |= {"routing_strategy": "mola", "num_experts": wanted["experts"], "top_k": 2, "router_loss": True}
    model.init_adapter(moe_peft.adapter_factory(wanted["method"].upper(), "a", **settings))
    trained = model_parameters(model)
    optimizer = torch.optim.AdamW(trained, lr=1e-4, foreach=True)
    ids = torch.randint(3, 1000, (4, 128)).tolist()
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__}), file=talk, flush=True)
    for _ in sys.stdin:
        batch = moe_peft.LLMModelInput(
            batch_configs_=[moe_peft.LLMBatchConfig(adapter_name_="a", batch_start_idx_=0, batch_end_idx_=4)],
            batch_tokens_=ids, batch_labels_=[list(row) for row in ids], batch_masks_=[[1] * 128] * 4,
        )  # fmt: skip
        started = time.process_time()
        output = model.forward(batch)[0]
        loss = output.loss + output.aux_loss if output.aux_loss is not None else output.loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps({"seconds": time.process_time() - started, "trained": sum(p.numel() for p in trained)}), file=talk, flush=True)


def model_parameters(model):
    """Whatever tensors of the adapter ask for gradients; the package keeps them outside of `parameters()` too."""
    seen, queue, found = set(), [model], []
    while queue:
        item = queue.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            if item.requires_grad and item.is_leaf:
                found.append(item)
        elif isinstance(item, dict):
            queue += item.values()
        elif isinstance(item, (list, tuple)):
            queue += item
        elif hasattr(item, "__dict__") and not isinstance(item, type):
            queue += vars(item).values()
    return found


if __name__ == "__main__":
    main()
