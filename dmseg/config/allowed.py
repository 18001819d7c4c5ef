"""The values of keys that have a fixed set of choices. Imports nothing, as completion reads them at every TAB."""

ALLOWED = {
    "precision": ("fp32", "tf32", "bf16", "auto"),
    "graph": ("auto", "never"),
    "evaluate.empty": ("skip", "one", "zero"),
    "evaluate.ties": ("background", "foreground"),
    "launcher.kind": ("auto", "inline", "local", "slurm"),
    "folds.kind": ("contiguous", "shuffled"),
    "labels.interpolation": ("nearest", "linear", "rater"),
    "labels.smoothing.kind": ("boundary", "uniform", "svls"),
    "distill.calibrate": ("inner", "train"),
    "model.decoder": ("library", "release"),
    "model.initialization": ("library", "kaiming"),
    "distill.teacher.model.decoder": ("library", "release"),
    "distill.teacher.model.initialization": ("library", "kaiming"),
    "distill.classes": ("all", "present", "foreground"),
    "distill.kde.keys": ("batch", "image"),
}
TRACKERS = ("disabled", "offline", "online", "jsonl", "mlflow")
"""Values of ``tracker``, which may also be a list of several."""
