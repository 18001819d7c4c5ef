"""Phantoms: generated data in the data sets' own layouts; QUBIQ's has several raters, whose probabilities are known."""

from dmseg.data.phantom.volumes import ensure_decathlon, ensure_kits, ensure_lits
from dmseg.data.phantom.write import ensure_qubiq, write_qubiq

__all__ = ["ensure_decathlon", "ensure_kits", "ensure_lits", "ensure_qubiq", "write_qubiq"]
