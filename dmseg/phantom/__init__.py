"""Phantoms: generated data in the layouts of real data sets; QUBIQ's has raters with known probabilities."""

from dmseg.phantom.planar import ensure_qubiq
from dmseg.phantom.scans import ensure_decathlon, ensure_kits, ensure_lits

__all__ = ["ensure_decathlon", "ensure_kits", "ensure_lits", "ensure_qubiq"]
