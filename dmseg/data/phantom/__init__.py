"""A phantom of QUBIQ: generated images with several raters each, whose probabilities are known exactly."""

from dmseg.data.phantom.write import ensure_qubiq, write_qubiq

__all__ = ["ensure_qubiq", "write_qubiq"]
