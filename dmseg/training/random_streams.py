"""Named streams of random numbers, which depend only on seed, fold and name."""

import hashlib

import torch


def stream_seed(seed: int, fold: int, name: str) -> int:
    """Seed of a stream, in [0, 2**63)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{fold}/{name}".encode()).digest()[:8], "big") >> 1


def stream(seed: int, fold: int, name: str) -> torch.Generator:
    """CPU generator of the stream with a name, such as ``order`` or ``augmentation``."""
    return torch.Generator().manual_seed(stream_seed(seed, fold, name))
