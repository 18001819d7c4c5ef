"""Phantoms: generated data in the data sets' own layouts; QUBIQ's has several raters, whose probabilities are known."""

from dmseg.phantom.planar import ensure_qubiq, write_qubiq
from dmseg.phantom.scans import ensure_decathlon, ensure_kits, ensure_lits

__all__ = ["ensure_decathlon", "ensure_kits", "ensure_lits", "ensure_qubiq", "write_qubiq"]
