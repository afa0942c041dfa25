"""How the tuner's benchmarks measure: CPU time of interleaved steps, what autograd keeps, and the peak of resident memory."""

import ctypes
import gc
import statistics
import time
from pathlib import Path

import torch


def interleaved(steps, rounds, warm=1):
    """Median process CPU seconds of each step; a round runs all of them, so that what else the machine does hits all alike.

    A step that returns a number has timed itself, in a process of its own.
    """
    times = {name: [] for name in steps}
    for number in range(rounds + warm):
        for name, step in steps.items():
            started = time.process_time()
            told = step()
            seconds = time.process_time() - started if told is None else told
            if number >= warm:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def saved_bytes(forward, parameters):
    """Bytes that autograd keeps from `forward` for the backward pass, parameters left out."""
    known = {p.untyped_storage().data_ptr() for p in parameters}
    saved = {}

    def note(tensor):
        # The graph gets nothing back: a node that held its own output would be in a cycle that no garbage collector sees, and all
        # activations would stay for ever. The storages are held here, so that no address is used twice.
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage

    with torch.autograd.graph.saved_tensors_hooks(note, _never_read):
        kept = forward()
    del kept
    num_bytes = sum(storage.nbytes() for storage in saved.values())
    saved.clear()  # who keeps the graph, such as a balance loss of the last pass, keeps `note` too
    return num_bytes


def _never_read(_):
    raise AssertionError("a pass whose tensors were only counted has no backward pass")


def peak_bytes(step):
    """By how much `step` raises this process's resident memory at most (Linux)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    step()
    return max(0, _status("VmHWM") - before)


def _status(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0
