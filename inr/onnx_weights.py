"""The weights of an image as part of its ONNX graph: what a generator makes of w, operator by operator.

`weights_of_w` runs the generator's own code for one w and notes, for every result that depends on w, the node that computes it. So there is
no second formula to keep in step, and whatever does not depend on w is a constant.
"""

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inr.fixed import NoFunction, parts_of

W = 'ws'  # name of the input, [1, num_ws, w_dim]


class Recorder(TorchDispatchMode):
    """While entered, notes the nodes of `graph` for what is computed from tensors that `note` was given."""

    def __init__(self, graph):
        super().__init__()
        self.graph, self.known = graph, {}

    def note(self, tensor, value):
        self.known[id(tensor)] = tensor, value  # the tensor is held, so that no other gets its id

    def value(self, found):
        """The graph's Value of a tensor or number, None of a tensor that none was noted for."""
        return self.known.get(id(found), (None, None))[1]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        if any(isinstance(each, torch.Tensor) and self.value(each) for each in tree_leaves(args)):
            name = function.overloadpacket.__name__
            if name in RULES:
                values = RULES[name](self, results, *args)
            elif name not in UNCHANGED:
                raise NoFunction(f'w cannot be an input of the graph: it has no operator for {name}; --format=onnx holds one w')
            else:
                values = self.value(args[0])
            several = isinstance(results, list | tuple)
            for result, value in zip(results if several else [results], values if several else [values], strict=True):
                if value is not None:
                    self.note(result, value)
        return results

    def operand(self, found):
        """A tensor or a number as a Value, which it may be already."""
        if isinstance(found, torch.Tensor):
            return self.value(found) or self.graph.constant(found.detach().cpu().numpy(), np.float32)
        return self.graph.constant(found, np.float32) if isinstance(found, int | float) else found

    def node(self, kind, inputs, **attributes):
        return self.graph.node(kind, [self.operand(each) for each in inputs], np.float32, **attributes)

    def whole(self, *numbers):
        return self.graph.constant(numbers, np.int64)


def _plain(kind, count):
    """An operator of the first `count` arguments."""
    return lambda to, result, *args: to.node(kind, args[:count])


def _shape(kind):
    return lambda to, result, x, *rest: to.node(kind, [x, to.whole(*result.shape)])


def _unbind(to, results, x, axis=0):
    return [to.node('Gather', [x, to.graph.constant(i, np.int64)], axis=axis) for i in range(len(results))]


def _slice(to, result, x, axis=0, start=None, end=None, step=1):
    return to.node('Slice', [x, to.whole(start or 0), to.whole(2**31 if end is None else min(end, 2**31)), to.whole(axis), to.whole(step)])


def _split(to, results, x, sizes, axis=0):
    found = to.graph.node('Split', [to.operand(x), to.whole(*sizes)], np.float32, outputs=len(sizes), axis=axis)
    return found if len(sizes) > 1 else [found]


def _swapped(to, result, x, *axes):
    order, (a, b) = list(range(x.ndim)), axes or (0, 1)
    order[a], order[b] = order[b], order[a]
    return to.node('Transpose', [x], perm=order)


def _sum(to, result, x, axes, keep=False):
    return to.node('ReduceSum', [x, to.whole(*axes)], keepdims=int(keep))


def _pad(to, result, x, sides, value=0):
    ends = np.zeros([2, x.ndim], np.int64)
    for axis, pair in enumerate(zip(sides[::2], sides[1::2], strict=True)):
        ends[:, -1 - axis] = pair
    return to.node('Pad', [x, to.whole(*ends.ravel().tolist()), value])


UNCHANGED = ('detach', 'alias', 'clone', 'contiguous', '_to_copy')
RULES = {  # ATen operator: function of the Recorder, its result and its arguments; None for what w does not change
    'add': _plain('Add', 2), 'sub': _plain('Sub', 2), 'mul': _plain('Mul', 2), 'div': _plain('Div', 2), 'pow': _plain('Pow', 2),
    'mm': _plain('MatMul', 2), 'bmm': _plain('MatMul', 2), 'sigmoid': _plain('Sigmoid', 1), 'tanh': _plain('Tanh', 1),
    'addmm': lambda to, result, bias, x, y: to.node('Add', [to.node('MatMul', [x, y]), bias]),
    'rsqrt': lambda to, result, x: to.node('Reciprocal', [to.node('Sqrt', [x])]),
    'view': _shape('Reshape'), '_unsafe_view': _shape('Reshape'), 'unsqueeze': _shape('Reshape'), 'expand': _shape('Expand'),
    'unbind': _unbind, 'slice': _slice, 'split_with_sizes': _split, 't': _swapped, 'transpose': _swapped, 'sum': _sum,
    'select': lambda to, result, x, axis, index: to.node('Gather', [x, to.graph.constant(index, np.int64)], axis=axis),
    'cat': lambda to, result, parts, axis=0: to.node('Concat', parts, axis=axis), 'constant_pad_nd': _pad,
    'new_zeros': lambda to, result, *args: None,
}  # fmt: skip


@torch.no_grad()
def weights_of_w(graph, G, ws, noise_mode):
    """{name: Value} of those tensors of a fixed.Function of G that depend on w. ws [1, num_ws, w_dim] is the graph's input W, and any."""
    from inr.onnx_graph import Value

    ws = ws.detach().float().clone()
    with Recorder(graph) as recorder:
        recorder.note(ws, Value(graph, W, np.float32))
        _forms, tensors = parts_of(G, ws, noise_mode)
    return {name: value for name, tensor in tensors.items() if (value := recorder.value(tensor)) is not None}
