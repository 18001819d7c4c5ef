"""The training loop and scoring on one GPU: fast path against a plain loop, graphs, several runs at once, prediction.

Run ``python bench/gpu.py``; it takes less than 9 minutes. Without a GPU it prints a message and exits. ``--tiny`` takes
the same path on the CPU with a tiny network, to check that the script runs. Goal: the fast path (bf16, graph) takes at
most a quarter of the time of the eager fp32 loop for UNet-ResNet50 at 256 x 256. Random data; seconds for a fixed
number of steps after a warm-up, each row in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from functools import partial

import torch

from dmseg.config.compose import compose_settings
from dmseg.data.batches import BatchSource
from dmseg.data.training_slices import TrainingData
from dmseg.methods.base import Method
from dmseg.training.fit import fit
from dmseg.training.graph import CudaGraph
from dmseg.training.observers import EpochReport, Observers
from dmseg.training.predictor import Predictor
from dmseg.training.random_streams import stream

GOAL = 0.25
WARM_UP = 10


class Clock(Observers):
    """Notes the time at the end of the warm-up and of training."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.times, self.losses = device, list[float](), list[float]()

    def epoch_ended(self, report: EpochReport) -> None:
        """An epoch has as many steps as the warm-up."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.times.append(time.perf_counter())
        self.losses.append(report.losses["loss"])


def train(device: torch.device, tiny: bool, precision: str, graphed: bool, epochs: int) -> dict[str, object]:
    """Trains on random data; seconds per step after the first epoch, and the mean loss of each epoch."""
    size, model = (32, "unet_tiny") if tiny else (256, "unet_resnet50")
    shown = [f"model={model}", f"data.size={size}", "model.weights=null", "labels=uniform", f"train.epochs={epochs}"]
    settings = compose_settings(shown)
    generator = torch.Generator().manual_seed(0)
    n = WARM_UP * settings.train.batch_size
    images = (torch.rand(n, 1, size, size, generator=generator) * 255).to(torch.uint8)
    labels = torch.rand(n, 1, size, size, generator=generator)
    data = TrainingData(images, labels, torch.arange(n), torch.ones(n, dtype=torch.long)).to(device)
    order, rater, augmentation = (stream(0, 0, name) for name in ("order", "rater", "augmentation"))
    source = BatchSource(data, settings.labels, settings.train, order, rater, augmentation)
    method, streams = Method(), partial(stream, 0, 0)
    torch.manual_seed(0)
    network = method.network(settings.model, 1, None).to(device)  # type: ignore[arg-type]
    optimizer = method.optimizer(network, settings.optim)
    schedule = method.schedule(optimizer, settings.optim, WARM_UP * epochs)
    clock, graph = Clock(device), CudaGraph if graphed and device.type == "cuda" else None
    objective = method.objective(settings.loss, streams)
    fit(network, source, objective, optimizer, schedule, precision, clock, None, graph)
    steps = WARM_UP * (epochs - 1)
    return {"step": (clock.times[-1] - clock.times[0]) / steps, "losses": clock.losses}


def rows(arguments: list[str], count: int = 1) -> list[dict[str, object]]:
    """Results of some processes of this script that run at once."""
    command = [sys.executable, __file__, "--row", *arguments]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    said = [process.communicate()[0] for process in processes]
    return [json.loads(text.splitlines()[-1]) for text in said]


def score(device: torch.device, tiny: bool) -> float:
    """Seconds for the level sets of 16 slices, predicted and thresholded on the device."""
    edge, model = (32, "unet_tiny") if tiny else (256, "unet_resnet50")
    settings = compose_settings([f"model={model}", "model.weights=null"])
    network = Method().network(settings.model, 1, None).to(device).eval()  # type: ignore[arg-type]
    predictor, image = Predictor(network), torch.rand(16, 1, edge, edge, device=device)
    start = 0.0
    with torch.inference_mode():
        for _ in range(2):  # the first warms up
            start = time.perf_counter()
            predictor.samples(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    """Prints all rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny network, also on the CPU")
    parser.add_argument("--row", nargs=3, metavar=("PRECISION", "GRAPH", "EPOCHS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (torch.cuda.is_available() or options.tiny):
        print("there is no GPU here; use --tiny to try the script on the CPU")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.row:
        precision, graphed, epochs = options.row
        print(json.dumps(train(device, options.tiny, precision, graphed == "graph", int(epochs))))
        return
    epochs, tiny = ("2", ["--tiny"]) if options.tiny else ("6", [])
    found = {}
    for precision, graphed in (("fp32", "plain"), ("bf16", "plain"), ("fp32", "graph"), ("bf16", "graph")):
        (result,) = rows([precision, graphed, epochs, *tiny])
        found[precision, graphed] = result
        ratio = result["step"] / found["fp32", "plain"]["step"]  # type: ignore[operator]
        goal = f" (goal {GOAL})" if (precision, graphed) == ("bf16", "graph") else ""
        print(f"{precision} {graphed}: {1e3 * result['step']:8.2f} ms per step, {ratio:.2f}{goal}")  # type: ignore[operator]
    for precision in ("fp32", "bf16"):
        both = (found[precision, name]["losses"][-1] for name in ("plain", "graph"))  # type: ignore[index]
        print(f"{precision}: loss of the last epoch, plain and graph: {' '.join(f'{value:.6f}' for value in both)}")
    for count in (1, 2) if options.tiny else (1, 2, 4, 8):
        results = rows(["bf16", "graph", epochs, *tiny], count)
        rate = sum(1 / result["step"] for result in results)  # type: ignore[operator, misc]
        print(f"{count} runs at once: {rate:8.1f} steps per second in total")
    print(f"prediction and level sets of 16 slices: {1e3 * score(device, options.tiny):.2f} ms")


if __name__ == "__main__":
    main()
