"""Training steps per hour with several workers: small and large networks, cores divided among processes.

Run ``python bench/workers.py``. Each combination of workers and threads that fits the cores trains for a fixed number
of steps in every worker at once; the peer is one worker with all cores. A ratio is the time of a step over all workers,
so smaller is better. Combinations take turns.
"""

import multiprocessing
import time
from multiprocessing.synchronize import Barrier

import torch
from loop import bare_step, make_training
from rows import Row, report

from dmseg.launch.local import usable_cores

SIZES = {"unet_tiny": (48, 24, 30), "unet_resnet18": (256, 64, 2)}
"""Edge length of the slices, number of slices, and steps that are timed."""
ROUNDS = 2


def work(model: str, threads: int, barrier: Barrier) -> None:
    """Trains in a process; waits for the others before and after the timed steps."""
    torch.set_num_threads(threads)
    size, slices, steps = SIZES[model]
    training = make_training(model, size, slices)
    for step in range(steps + 1):
        if step == 1:  # the first warms up
            barrier.wait()
        bare_step(training, training.objective, training.source.next(), "fp32")
    barrier.wait()


def seconds(model: str, workers: int, threads: int) -> float:
    """Seconds per step, over all workers."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers + 1)
    processes = [context.Process(target=work, args=(model, threads, barrier)) for _ in range(workers)]
    for process in processes:
        process.start()
    barrier.wait()
    start = time.perf_counter()
    barrier.wait()
    taken = time.perf_counter() - start
    for process in processes:
        process.join()
    return taken / (workers * SIZES[model][2])


def main() -> None:
    cores = len(usable_cores())
    counts = sorted({1, *(2**k for k in range(1, cores.bit_length()) if cores % 2**k == 0), cores})
    pairs = [(1, cores), *((workers, cores // workers) for workers in counts[1:]), (1, 1)]
    for model in SIZES:
        found = [{pair: seconds(model, *pair) for pair in pairs} for _ in range(ROUNDS)]
        best = {pair: min(one[pair] for one in found) for pair in pairs}
        for workers, threads in pairs[1:]:
            what = f"{workers} worker{'s' if workers > 1 else ''} of {threads} thread{'s' if threads > 1 else ''}"
            ratio = best[workers, threads] / best[pairs[0]]
            report(Row(f"workers: {model}, {what}", ratio, None, f"time of a step, 1 worker of {cores} threads"))


if __name__ == "__main__":
    main()
