"""A stand-in for a CUDA graph on the CPU: it records the operations on tensors and repeats them in their places."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

HOST_READS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "lift_fresh")


def storages(values):
    return {value.untyped_storage().data_ptr() for value in values if value.untyped_storage().nbytes()}


def tensors(node):
    return [value for value in tree_flatten(node)[0] if isinstance(value, torch.Tensor)]


def _written(function, args, kwargs):
    """The arguments that an operation writes to."""
    if function._schema.name.endswith("::native_batch_norm"):  # its schema does not say so
        return tensors(args[3:5])
    named = zip(function._schema.arguments, args, strict=False)
    marked = [value for known, value in named if known.alias_info is not None and known.alias_info.is_write]
    outs = [
        kwargs[known.name]
        for known in function._schema.arguments
        if known.alias_info is not None and known.alias_info.is_write and known.name in kwargs
    ]
    return tensors([marked, outs])


class _Recorder(TorchDispatchMode):
    def __init__(self, tape):
        super().__init__()
        self.tape, self.undo = tape, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.split("::")[-1]
        if name in HOST_READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        self.undo += [(value.detach(), value.detach().clone()) for value in _written(function, args, kwargs or {})]
        found = function(*args, **(kwargs or {}))
        # the graph works in the places of its tensors, so a place must not be known by an object that changes
        alias = tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs or {}, found))
        self.tape.append((function, *alias))
        return found


class TapeGraph:
    """Records by doing the operations once and undoing them."""

    def __init__(self):
        self.tape, self.replays = [], 0

    def warm_up(self, function):
        function()

    def record(self, function):
        recorder = _Recorder(self.tape)
        try:
            with recorder:
                function()
        finally:
            with torch.no_grad():
                for place, value in reversed(recorder.undo):
                    place.copy_(value)

    def replay(self):
        self.replays += 1
        with torch.no_grad():
            for function, args, kwargs, found in self.tape:
                made, kept = tensors(function(*args, **kwargs)), tensors(found)
                if function._schema.is_mutable or storages(kept) & storages(tensors((args, kwargs))):
                    continue
                for value, place in zip(made, kept, strict=True):
                    place.copy_(value)
