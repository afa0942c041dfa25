"""Two processes on CPU: DDP and FSDP2 give the gradients of one process."""

import os
import socket

import peft
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from allocsearch.moelora import MoeLoraConfig
from tests.moelora.conftest import batch, build, shake

ADAPTERS = {
    "topk": {"allocation": "3x2 4+2+1", "aux_loss_weight": 0.5},
    "threshold": {"allocation": "q:2,v:2,down:3,parallel:2,prompt:2*2", "router": "threshold"},
}


def adapted(router):
    return shake(peft.get_peft_model(build("llama"), MoeLoraConfig(**ADAPTERS[router]))).train()


def gradients(model):
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            grad = parameter.grad
            found[name.removeprefix("module.")] = grad.full_tensor() if hasattr(grad, "full_tensor") else grad.clone()
    return found


def alone(router, seeds):
    """Gradients averaged over the ranks' batches."""
    model = adapted(router)
    for seed in seeds:
        (model(**batch(seed=seed)).loss / len(seeds)).backward()
    return gradients(model)


def work(rank, port):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for router in ADAPTERS:
        expected = alone(router, seeds=(0, 1))
        replicated = DistributedDataParallel(adapted(router))
        replicated(**batch(seed=rank)).loss.backward()

        sharded = adapted(router)
        for layer in sharded.base_model.model.model.layers:
            fully_shard(layer)
        fully_shard(sharded)
        sharded(**batch(seed=rank)).loss.backward()
        sharded(**batch(seed=rank)).loss.backward()  # a second pass, for parameters that were freed and gathered again
        for actual, times in ((gradients(replicated), 1), (gradients(sharded), 2)):
            assert actual.keys() == expected.keys()
            for name, grad in expected.items():
                torch.testing.assert_close(actual[name], grad * times, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    dist.destroy_process_group()


def test_two_processes_agree_with_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(work, args=(port,), nprocs=2)
