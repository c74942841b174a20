"""A block of FMM layers drawn on a CPU without gradients: panels of points run through all its layers while they sit in the cache.

`why_not` says what stands against it; `draw` does it with the compiled code of fmm_cpu.cpp. What it computes is what the layers of the
block compute one by one (synthesis.SynthesisBlock, hypernetwork.InrBlock), but for the order of sums and the way sines are taken.

Legend: N images, C channels, E coordinate features, H and W rows and columns of points.
"""

import ctypes
import math
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from inr.ops import native
from inr.ops.native import pointer


@dataclass(frozen=True)
class Step:
    """One layer of a block: clamp(gain * lrelu(W [x; e] + b)).

    weights: fmm.Weights; bias: [N or 1, C_out]
    sees: whether it has coordinate features behind the channels of x
    slope: of lrelu below 0; gain > 0; clamp: limit of the absolute value, or None
    """

    weights: object
    bias: torch.Tensor
    sees: bool
    slope: float
    gain: float = 1.0
    clamp: float | None = None


def why_not(block, points, dtype, tensors):
    """Why a block cannot be drawn here, in one line; None if it can. tensors: what comes into it."""
    if any(t.device.type != 'cpu' for t in (*tensors, *block.parameters())):
        return 'its tensors are not on the CPU'
    if block.training and needs_gradients(block, tensors):
        return 'a block in training keeps what its gradients need'
    if _get_current_dispatch_mode() is not None or torch.compiler.is_compiling():
        return 'its operators are being recorded'
    if any(module._forward_hooks or module._forward_pre_hooks for module in block.modules()):
        return 'it has hooks that want to see its layers'
    if points.x.ndim != 1:
        return 'the points are no lattice'
    if dtype not in (torch.float32, torch.bfloat16):
        return f'it computes in float32 and bfloat16, not in {dtype}'
    return None


def needs_gradients(block, tensors):
    """Whether gradients of `tensors` or of the block's parameters may be asked for."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in (*tensors, *block.parameters()))


class Differentiable(torch.autograd.Function):
    """What `fast` draws, with the gradients, of every order, of what `plain` computes: plain is computed once more for them.

    apply(fast, plain, *tensors): functions without arguments that return (x, img) out of these tensors
    """

    @staticmethod
    def forward(ctx, fast, plain, *tensors):
        ctx.plain = plain
        ctx.save_for_backward(*tensors)
        return fast()

    @staticmethod
    def backward(ctx, *grads):
        again = torch.is_grad_enabled()
        wanted = [t for t, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[2:], strict=True) if needed]
        with torch.enable_grad():
            values = ctx.plain()
        pairs = [(v, g) for v, g in zip(values, grads, strict=True) if v is not None and g is not None and v.requires_grad]
        values, grads = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(values, wanted, grads, create_graph=again, allow_unused=True))
        return None, None, *(next(found) if needed else None for needed in ctx.needs_input_grad[2:])


def run(block, given, fast, plain):
    """fast(), with plain's gradients where any of `given` or of the block's parameters needs them."""
    if not needs_gradients(block, given):
        with torch.no_grad():
            return fast()
    return Differentiable.apply(fast, plain, *given, *block.parameters())


@torch.no_grad()
def draw(x, img, steps, to_rgb, features, points, read, dtype, keep=True):
    """One block, image by image.

    x: [N, C, h, w] of the block below, or None; img: [N, img_channels, h, w] float32, or None
    steps: Steps; to_rgb: a Step whose clamp acts before img is added
    features: fourier.Separable, or None; points: grid.Points
    read: (rows, columns), refinement.AxisRead of the grid below, which x and img then are of; None: they are of the points
    dtype: bfloat16 to multiply in that, else float32
    keep: whether x is needed again
    Returns (x [N, C, H, W] or None, img [N, img_channels, H, W]), without gradients.
    """
    library, threads = native.library(), torch.get_num_threads()
    bits = dtype == torch.bfloat16
    (H, W), N = points.shape, to_rgb.weights.images
    held = torch.bfloat16 if bits else torch.float32
    x = None if x is None else x.to(held).contiguous()
    img = None if img is None else _with_tail(img)
    out = torch.empty([N, steps[-1].weights.shape[0], H, W], dtype=held) if keep else None
    image = torch.empty([N, to_rgb.weights.shape[0], H, W])
    alive = []  # what the compiled code points at
    tables = None if features is None else _Tables(features, points)
    below = _reads_below(points, read)
    below_size = (H, W) if x is None else x.shape[2:]
    for n in range(N):
        layers = (native.Layer * len(steps))()
        for i, step in enumerate(steps):
            E = features.count if step.sees else 0
            C = step.weights.shape[1] - E
            packed = _pack(library, step, n, C, E, bits, threads)
            held_below = None
            if i == 0 and read is not None:
                held_below = torch.empty(step.weights.shape[0] * x[n, 0].numel() + 64)
                library.fmm_product(
                    _at(x, n), bits, packed[0].data_ptr(), held_below.data_ptr(), C, step.weights.shape[0], x[n, 0].numel(), bits, threads
                )  # fmt: skip
                C = 0
            layers[i] = _layer(step, packed, C, E, held_below)
            alive += [packed, held_below]
        packed = _pack(library, to_rgb, n, to_rgb.weights.shape[1], 0, bits, threads)
        final = _layer(to_rgb, packed, to_rgb.weights.shape[1], 0, None)
        if img is not None:
            final.below = _at(img, n)
        alive += [packed, layers]
        block = native.Block(
            height=H, width=W, layers=len(steps), layer=layers, to_rgb=final, x_bits=bits,
            x=0 if x is None or read is not None else _at(x, n), x_out=0 if out is None else _at(out, n), image=_at(image, n),
            **{name: pointer(part) for name, part in below.items()}, below_width=below_size[1], below_points=below_size[0] * below_size[1],
        )  # fmt: skip
        if tables is not None:
            block.features = ctypes.pointer(tables.of(n))
        library.fmm_block(block, bits, threads)
        alive.clear()
    return out, image


def affine(layer, w):
    """layer(w) for the host's FullyConnectedLayer without activation: w [N, w_dim] -> [N, out_features], gradients never."""
    if not hasattr(layer, 'weight_gain'):
        return layer(w)
    bias_gain = getattr(layer, 'bias_gain', 1)
    if len(w) > 1 or not (w.is_contiguous() and layer.weight.is_contiguous()):
        y = w * layer.weight_gain @ layer.weight.t()
        return y if layer.bias is None else y.add_(layer.bias * bias_gain)
    y = torch.empty([1, layer.weight.shape[0]])
    native.library().fmm_affine(
        w.data_ptr(), layer.weight.data_ptr(), pointer(layer.bias), layer.weight_gain, bias_gain, y.data_ptr(), *layer.weight.shape,
        torch.get_num_threads(),
    )  # fmt: skip
    return y


def _at(tensor, n):
    """Address of image n, or of the one image there is."""
    return tensor.data_ptr() + (n * tensor.stride(0) * tensor.element_size() if len(tensor) > 1 else 0)


def _with_tail(tensor):
    """The same values with a vector's length of numbers behind them that may be read."""
    longer = torch.empty(tensor.numel() + 64)
    return longer[: tensor.numel()].view(tensor.shape).copy_(tensor)


def _pack(library, step, n, C, E, bits, threads):
    """(packed W_x, packed W_e, bias) of image n, with the gain in them."""
    unit = library.fmm_channels_step()
    rows = math.ceil(step.weights.shape[0] / unit) * unit
    w_x, w_e = torch.empty(rows * (C + C % 2)), torch.empty(rows * (E + E % 2))
    bias = torch.zeros(rows)
    bias[: step.weights.shape[0]] = step.bias[n if len(step.bias) > 1 else 0] * step.gain
    shared, left, right = step.weights.of(n)
    library.fmm_pack(
        shared.data_ptr(), pointer(left), pointer(right), 0 if left is None else left.shape[1], step.weights.shape[0], C, E, step.gain,
        bits, w_x.data_ptr(), w_e.data_ptr(), threads,
    )  # fmt: skip
    return w_x, w_e, bias


def _layer(step, packed, C, E, below):
    w_x, w_e, bias = packed
    most = math.inf if step.clamp is None else step.clamp
    return native.Layer(C, E, step.weights.shape[0], pointer(w_x), pointer(w_e), pointer(bias), pointer(below), step.slope, most)


AXES = ('row_low', 'column_low', 'row_high', 'column_high', 'row_share', 'column_share')


def _reads_below(points, read):
    """What native.Block wants to know of the grid below: {name: int32 or float32 tensor, or None for shares that are all 0}."""
    found = _axis_reads((None, None) if read is None else read, points)
    if read is None or all(axis.frac is None for axis in read):
        found.update(row_share=None, column_share=None)
    return found


def _axis_reads(reads, points):
    """{name of AXES: tensor} of the reads along rows and columns; None: all that is held, in order."""
    axes = [_axis_read(read, size) for read, size in zip(reads, points.shape, strict=True)]
    return dict(zip(AXES, (part for kind in zip(*axes, strict=True) for part in kind), strict=True))


class _Tables:
    """What fmm_cpu.cpp needs to make the features of a lattice, kept alive."""

    def __init__(self, features, points):
        self.features = features
        self.raw = [] if features.raw is None else [axis.contiguous() for axis in features.raw]
        self.waves = [wave.contiguous() for phase in (features.phase_x, features.phase_y) for wave in (phase.sin(), phase.cos())]
        if features.constants is not None:
            self.constants = features.constants.detach().contiguous()
            self.cells = _axis_reads(points.cells or (None, None), points)

    def of(self, n):
        """native.Features of image n."""
        f = self.features
        fields = dict(raw=f.raw is not None, rows=f.phase_x.shape[1], cosine=f.cosine, constants=0)
        fields.update(zip(('x', 'y'), map(pointer, self.raw), strict=False))
        fields.update((name, _at(wave, n)) for name, wave in zip(('sin_x', 'cos_x', 'sin_y', 'cos_y'), self.waves, strict=True))
        if f.constants is not None:
            fields.update(constants=self.constants.shape[1], cells=self.constants.data_ptr())
            fields.update(cell_rows=self.constants.shape[2], cell_columns=self.constants.shape[3])
            fields.update((name, pointer(part)) for name, part in self.cells.items())
        return native.Features(**fields)


def _axis_read(read, size):
    """(low, high, share) of one axis: int32, int32, float32 [size]."""
    low = torch.arange(size) if read is None else read.lo
    high = low if read is None or read.hi is None else read.hi
    share = torch.zeros(size) if read is None or read.frac is None else read.frac
    return low.to(torch.int32).contiguous(), high.to(torch.int32).contiguous(), share.contiguous()
