# ruff: noqa: E501 - tables of inputs
"""Files that a user names as weights: damaged safetensors, other formats under their name, and no regular files."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
from fuzz.harness import SPECIAL, Right, special
from fuzz.nifti import cut, flip
from fuzz.templates import TRAIN, study


class Pwned:
    """Touches a file where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def sound():
    """Weights of the encoder of the smallest network."""
    import torch
    from safetensors.torch import save

    from dmseg.config.compose import compose_settings
    from dmseg.models.build import build_model

    torch.manual_seed(0)
    encoder = build_model(
        **compose_settings(["data=lidc", "model=unet_tiny"]).model.arguments, in_channels=1
    ).encoder.model
    return save({name: value.contiguous() for name, value in encoder.state_dict().items()})


def header(node, data=b""):
    text = node if isinstance(node, bytes) else json.dumps(node).encode()
    return struct.pack("<Q", len(text)) + text + data


def changed(change):
    """The sound file with its header changed."""

    def make(rng):
        content = sound()
        (length,) = struct.unpack("<Q", content[:8])
        return header(change(json.loads(content[8 : 8 + length])), content[8 + length :])

    return make


def first(**values):
    def change(node):
        name = sorted(set(node) - {"__metadata__"})[0]
        return node | {name: node[name] | values}

    return changed(change)


def named(make, suffix=".safetensors", kind=None):
    """Trains with a file as weights."""

    def apply(box, rng):
        path = box / "cwd" / f"encoder{suffix}"
        if kind is None:
            path.write_bytes(make(rng))
        else:
            special(path, kind)
        words = ["train", *study(box), f"model.weights={path}"]
        return Right(("encoder", "model.weights"), words=words, judge=lambda box, ran: [])

    return apply


def zipped(rng):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Pwned()))
    return target.getvalue()


def as_array(values):
    target = io.BytesIO()
    np.save(target, values, allow_pickle=True)
    return target.getvalue()


REFUSED = {
    "empty": lambda rng: b"", "text": lambda rng: b"<html>not found</html>" * 9, "zeros": lambda rng: bytes(4096),
    "cut": lambda rng: cut(sound(), rng), "cut in the header": lambda rng: sound()[: int(rng.integers(1, 200))],
    "a header of 2^60": lambda rng: struct.pack("<Q", 2**60) + b"{}", "a header of 2^64 - 1": lambda rng: b"\xff" * 99,
    "a header of 1 GiB": lambda rng: struct.pack("<Q", 2**30) + b"{" * 99, "more": lambda rng: sound() + b"more",
    "a pickle": lambda rng: pickle.dumps(Pwned()), "a zipped pickle": zipped,
    "an array": lambda rng: as_array(np.zeros(9)), "an array of objects": lambda rng: as_array(np.array([Pwned()])),
    "no tensors": lambda rng: header({}), "a list": lambda rng: header([]), "null": lambda rng: header(b"null"),
    "deep": lambda rng: header(b'{"a":' * 100000), "not UTF-8": lambda rng: header(b"\xff\xfe{}"),
    "one foreign tensor": lambda rng: header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "2^62 values": lambda rng: header({"x": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 4]}}, b"0000"),
    "a huge shape": first(shape=[2**60]), "a negative shape": first(shape=[-1]), "an unknown type": first(dtype="F99"),
    "offsets exchanged": first(data_offsets=[8, 0]), "offsets far away": first(data_offsets=[2**50, 2**51]),
    "no shape": first(shape=None), "other names": changed(lambda node: {f"x.{name}": row for name, row in node.items()}),
    "not finite": lambda rng: sound()[:-256] + struct.pack("<f", float("nan")) * 64,
    "infinite": lambda rng: sound()[:-256] + struct.pack("<f", float("inf")) * 64,
}  # fmt: skip
CHANGES = [
    *(((TRAIN,), "refused", name, named(make)) for name, make in REFUSED.items()),
    *(((TRAIN,), "refused", f"a {kind}", named(None, kind=kind)) for kind in SPECIAL),
    *(
        ((TRAIN,), "refused", f"a pickle as {end}", named(lambda rng: pickle.dumps(Pwned()), end))
        for end in (".pt", "")
    ),
    ((TRAIN,), "accepted", "sound", named(lambda rng: sound())),
    ((TRAIN,), "accepted", "another name", named(lambda rng: sound(), ".bin")),
    ((TRAIN,), "either", "one bit of the header", named(lambda rng: flip(sound()[:400], rng) + sound()[400:])),
]
