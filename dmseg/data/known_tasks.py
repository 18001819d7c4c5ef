"""Tasks of data sets and their raters, by adapter.

Completion in a shell and ids of runs need them; importing an adapter would take too long.
"""

QUBIQ = {
    "prostate-1": 6, "prostate-2": 6, "brain-growth-1": 7,
    "brain-tumor-1": 3, "brain-tumor-2": 3, "brain-tumor-3": 3, "kidney-1": 3,
}  # fmt: skip
"""Number of raters of each task of QUBIQ."""
KNOWN_TASKS = {
    "dmseg.data.adapters.qubiq.QubiqAdapter": tuple(QUBIQ),
    "dmseg.data.adapters.lidc.LidcAdapter": ("nodule",),
    "dmseg.data.adapters.lits.LitsAdapter": ("tumour", "organ"),
    "dmseg.data.adapters.kits.KitsAdapter": ("tumour", "organ"),
}
"""Names of tasks by the dotted name of the adapter. Some need other settings than the default ones."""

SINGLE_EXPERT = tuple(
    f"dmseg.data.adapters.{name}Adapter" for name in ("lits.Lits", "kits.Kits", "decathlon.Decathlon")
)
"""Adapters whose tasks have a single rater, the expert."""


def known_raters(adapter: str, task: str) -> tuple[str, ...] | None:
    """Names of the raters that an adapter of dmseg gives a task; None for other adapters. They are never changed.

    Args:
        adapter: dotted name of the adapter.
        task: name of the task.
    """
    if adapter == "dmseg.data.adapters.lidc.LidcAdapter":
        return tuple(f"mask-{index}" for index in range(4))
    if adapter == "dmseg.data.adapters.qubiq.QubiqAdapter":
        return tuple(f"seg{index:02d}" for index in range(1, QUBIQ.get(task, 0) + 1))
    return ("expert",) if adapter in SINGLE_EXPERT else None
