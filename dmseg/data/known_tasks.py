"""Names of the tasks of data sets, by adapter, for completion in a shell: importing an adapter would take too long."""

QUBIQ = (
    "prostate-1", "prostate-2", "brain-growth-1", "brain-tumor-1", "brain-tumor-2", "brain-tumor-3", "kidney-1",
)  # fmt: skip
KNOWN_TASKS = {
    "dmseg.data.adapters.qubiq.QubiqAdapter": QUBIQ,
    "dmseg.data.adapters.lidc.LidcAdapter": ("nodule",),
    "dmseg.data.adapters.lits.LitsAdapter": ("tumour", "organ"),
    "dmseg.data.adapters.kits.KitsAdapter": ("tumour", "organ"),
}
"""Names of tasks by the dotted name of the adapter. Some need other settings than the default ones."""
