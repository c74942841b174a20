"""A block of FMM layers drawn on a CPU without gradients: panels of points run through all its layers while they sit in the cache.

`why_not` says what stands against it; `draw` does it with the compiled code of block_cpu.cpp. What it computes is what the layers of the
block compute one by one (blocks.SynthesisBlock, hypernetwork.InrBlock), but for the order of sums and the way sines are taken.

Legend: N images, C channels, E coordinate features, h and w rows and columns of the parent grid, H and W of the block's own points.
"""

import ctypes
import math
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from inr.ops import native
from inr.ops.native import pointer

TAIL = 64  # numbers behind a plane that a vector may read too
AXES = ('row_low', 'column_low', 'row_high', 'column_high', 'row_share', 'column_share')


@dataclass(frozen=True)
class BlockLayer:
    """One layer of a block: clamp(gain * lrelu(W [x; e] + b)).

    weights: fmm.Weights; bias: [N or 1, C_out]
    uses_coords: whether it has coordinate features behind the channels of x
    slope: of lrelu below 0; gain > 0; clamp: limit of the absolute value, or None
    """

    weights: object
    bias: torch.Tensor
    uses_coords: bool
    slope: float
    gain: float = 1.0
    clamp: float | None = None


@dataclass(frozen=True)
class AxisPhases:
    """Features of the points of a lattice in the parts they are made of: sin(a x + b y) comes from the sines and cosines of a x and b y.

    raw: (x [W], y [H]), or None; cosine: whether there are cosines beside the sines
    phase_x [N or 1, n, W], phase_y [N or 1, n, H]: a x, and b y with the phases of the rows, in radians
    constants: learned ones of the grid's cells [1, C, R, R], or None
    kept: [N or 1, n] what sines and cosines are multiplied with, or None
    """

    raw: tuple | None
    phase_x: torch.Tensor
    phase_y: torch.Tensor
    cosine: bool
    constants: torch.Tensor | None
    kept: torch.Tensor | None = None

    @property
    def count(self):
        """E."""
        constants = 0 if self.constants is None else self.constants.shape[1]
        return 2 * (self.raw is not None) + self.phase_x.shape[1] * (1 + self.cosine) + constants

    @classmethod
    def of(cls, points, rows, shift=None, raw=None, cosine=True, constants=None, kept=None):
        """From rows [N or 1, n, 2] and their phases [N, n] or None."""
        along_y = rows[..., 1:] * points.y  # [N or 1, n, H]
        return cls(raw, rows[..., :1] * points.x, along_y if shift is None else along_y + shift[..., None], cosine, constants, kept)


def why_not(block, points, dtype, tensors):
    """Why a block cannot be drawn here, in one line; None if it can. tensors: what comes into it."""
    own = [*block.parameters(), *block.buffers()]
    if not len(tensors[0]):
        return 'there are no images'
    if any(t.device.type != 'cpu' for t in (*tensors, *own)):
        return 'its tensors are not on the CPU'
    if block.training and needs_gradients(block, tensors):
        return 'a block in training keeps what its gradients need'
    if _get_current_dispatch_mode() is not None or torch.compiler.is_compiling():
        return 'its operators are being recorded'
    if any(module._forward_hooks or module._forward_pre_hooks for module in block.modules()):
        return 'its layers have hooks'
    if block.coords is not None and not hasattr(block.coords, 'axis_phases'):
        return 'its coordinates are moved'
    if points.x.ndim != 1:
        return 'the points are no lattice'
    if dtype not in (torch.float32, torch.bfloat16):
        return f'it computes in float32 and bfloat16, not in {dtype}'
    if other := [t.dtype for t in own if t.dtype != torch.float32]:
        return f'its parameters are float32, not {other[0]}'
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


def draw_block(block, x, img, w, points, upsample, dtype, keep):
    """`draw` of a block's own layers and features; w: [N, w_dim] of each layer and to-RGB; upsample: refinement.ParentUpsample or None."""
    features = None if block.coords is None else block.coords.axis_phases(points, w[0])
    return draw(x, img, *block.chain(w, affine), features, points, upsample and upsample.axes, dtype, keep)


@torch.no_grad()
def draw(x, img, layers, to_rgb, features, points, upsample, dtype, keep=True):
    """One block, image by image.

    x: [N, C, h, w] of the parent grid, or None; img: [N, img_channels, h, w], or None
    layers: BlockLayers; to_rgb: one whose clamp acts before img is added
    features: AxisPhases, or None; points: grid.Points
    upsample: (rows, columns), refinement.AxisRead of the parent grid; None: x and img are of the points themselves
    dtype: bfloat16 to multiply in that, else float32; keep: whether x is needed again
    Returns (x [N, C, H, W] or None, img [N, img_channels, H, W]), without gradients.
    """
    library, threads = native.library(), torch.get_num_threads()
    bits, (H, W), N = dtype == torch.bfloat16, points.shape, len(to_rgb.weights.matrix)
    dtype = torch.bfloat16 if bits else torch.float32
    x = None if x is None else x.to(dtype).contiguous()  # [N, C, h, w]
    img = None if img is None else _with_tail(img)  # [N, img_channels, h, w]
    out = torch.empty([N, layers[-1].weights.shape[0], H, W], dtype=dtype) if keep else None
    image = torch.empty([N, to_rgb.weights.shape[0], H, W], dtype=torch.float32)
    size = next((tuple(held.shape[2:]) for held in (x, img) if held is not None), (H, W))
    reads, coordinates = _parent_reads(points, upsample, size), None if features is None else _Coordinates(features, points)
    for n in range(N):
        chain, alive, channels = (native.Layer * len(layers))(), [], 0 if x is None else x.shape[1]
        for i, layer in enumerate(layers):
            packed = _Packed(library, layer, n, channels, features.count if layer.uses_coords else 0, bits, threads)
            if i == 0 and upsample is not None:  # W_x x on the parent grid
                packed.multiply_parent(library, x[n], threads)
            chain[i] = packed.as_struct()
            alive.append(packed)  # what the compiled code points at
            channels = layer.weights.shape[0]
        final = _Packed(library, to_rgb, n, channels, 0, bits, threads)
        final.parent = None if img is None else img[n]
        block = native.Block(
            height=H, width=W, layers=len(layers), layer=chain, to_rgb=final.as_struct(), x_bits=bits,
            x=0 if x is None or upsample is not None else pointer(x[n], dtype, alive[0].in_channels * H * W),
            x_out=0 if out is None else pointer(out[n], dtype), image=pointer(image[n]),
            **{name: pointer(read, None if read is None else read.dtype) for name, read in reads.items()},
            parent_width=size[1], parent_points=size[0] * size[1],
        )  # fmt: skip
        if coordinates is not None:
            block.features = ctypes.pointer(coordinates.of(n))
        library.fmm_block(block, bits, threads)
    return out, image


def affine(layer, w):
    """layer(w) for the host's FullyConnectedLayer without activation: w [N, w_dim] -> [N, out_features], gradients never."""
    if not hasattr(layer, 'weight_gain'):
        return layer(w)
    weight, bias, bias_gain = layer.weight, layer.bias, getattr(layer, 'bias_gain', 1)  # once: parametrizations compute them
    if len(w) > 1 or any(t.dtype != torch.float32 for t in (w, weight)):
        y = w * layer.weight_gain @ weight.t()  # [N, out_features]
        return y if bias is None else y.add_(bias * bias_gain)
    w, weight, bias = w.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
    (M, K), y = weight.shape, w.new_empty([1, len(weight)])
    native.library().fmm_affine(
        pointer(w, count=K), pointer(weight), pointer(bias, count=M), layer.weight_gain, bias_gain, pointer(y), M, K,
        torch.get_num_threads(),
    )  # fmt: skip
    return y


def _of_image(weights, n):
    """(matrix, A, B) of fmm.Weights, contiguous, those of image n; A and B are None where W is put together."""
    if weights.left is None:
        return weights.matrix[n].contiguous(), None, None
    return weights.matrix.contiguous(), weights.left[n].contiguous(), weights.right[n].contiguous()


class _Packed:
    """A layer of image n as block_cpu.cpp reads it: weights packed, the gain in them; kept alive as long as this is.

    C: channels of x; E: coordinate features it uses
    """

    def __init__(self, library, layer, n, C, E, bits, threads):
        self.layer, self.in_channels, self.features, self.bits, self.parent = layer, C, E, bits, None
        C_out, unit = layer.weights.shape[0], library.fmm_channels_step()
        if layer.weights.shape[1] != C + E:
            raise ValueError(f'a layer with weights of {layer.weights.shape[1]} columns for {C} channels and {E} coordinate features')
        rows = math.ceil(C_out / unit) * unit
        self.w_x, self.w_e = (torch.empty(rows * (count + count % 2), dtype=torch.float32) for count in (C, E))
        self.bias = torch.zeros(rows, dtype=torch.float32)
        self.bias[:C_out] = layer.bias[n if len(layer.bias) > 1 else 0] * layer.gain
        shared, left, right = (None if part is None else part.to(torch.float32) for part in _of_image(layer.weights, n))
        rank = 0 if left is None else left.shape[1]
        library.fmm_pack(
            pointer(shared, count=C_out * (C + E)), pointer(left, count=C_out * rank), pointer(right, count=rank * (C + E)), rank,
            C_out, C, E, layer.gain, bits, pointer(self.w_x), pointer(self.w_e), threads,
        )  # fmt: skip

    def multiply_parent(self, library, x, threads):
        """Takes W_x x on the parent grid, x [C, h, w], so that only the products are upsampled."""
        C_out, points = self.layer.weights.shape[0], x[0].numel()
        self.parent = torch.empty(C_out * points + TAIL, dtype=torch.float32)
        library.fmm_product(
            pointer(x, torch.bfloat16 if self.bits else torch.float32), self.bits, pointer(self.w_x), pointer(self.parent),
            self.in_channels, C_out, points, self.bits, threads,
        )  # fmt: skip
        self.in_channels = 0

    def as_struct(self):
        """native.Layer."""
        clamp = math.inf if self.layer.clamp is None else self.layer.clamp
        parts = map(pointer, (self.w_x, self.w_e, self.bias, self.parent))
        return native.Layer(self.in_channels, self.features, self.layer.weights.shape[0], *parts, self.layer.slope, clamp)


class _Coordinates:
    """What block_cpu.cpp needs to make the features of a lattice, kept alive."""

    def __init__(self, features, points):
        self.features = features
        self.raw = [] if features.raw is None else [axis.to(torch.float32).contiguous() for axis in features.raw]
        phases = [phase.to(torch.float32) for phase in (features.phase_x, features.phase_y)]
        waves = [[phase.sin(), phase.cos()] for phase in phases]  # [N or 1, n, W or H]
        if features.kept is not None:  # every product of sines and cosines has one factor along x
            waves[0] = [wave * features.kept[:, :, None] for wave in waves[0]]
        self.waves = [wave.contiguous() for pair in waves for wave in pair]
        if features.constants is not None:
            self.constants = features.constants.detach().to(torch.float32).contiguous()
            self.cells = _axis_reads(points.cells or (None, None), points.shape, self.constants.shape[2:])

    def of(self, n):
        """native.Features of image n."""
        f = self.features
        fields = dict(raw=f.raw is not None, rows=f.phase_x.shape[1], cosine=f.cosine, constants=0)
        fields.update(zip(('x', 'y'), map(pointer, self.raw), strict=False))
        waves = [pointer(wave[n if len(wave) > 1 else 0]) for wave in self.waves]
        fields.update(zip(('sin_x', 'cos_x', 'sin_y', 'cos_y'), waves, strict=True))
        if f.constants is not None:
            _, count, rows, columns = self.constants.shape
            fields.update(constants=count, cells=pointer(self.constants), cell_rows=rows, cell_columns=columns)
            fields.update((name, pointer(read, read.dtype)) for name, read in self.cells.items())
        return native.Features(**fields)


def _with_tail(tensor):
    """The same values in float32, with numbers behind them that a vector may read too."""
    longer = torch.empty(tensor.numel() + TAIL, dtype=torch.float32)
    return longer[: tensor.numel()].view(tensor.shape).copy_(tensor)


def _parent_reads(points, upsample, size):
    """What native.Block holds of the parent grid, of `size` rows and columns: {name of AXES: tensor, None for shares that are all 0}."""
    reads = _axis_reads((None, None) if upsample is None else upsample, points.shape, size)
    if upsample is None or all(axis.frac is None for axis in upsample):
        reads.update(row_share=None, column_share=None)
    return reads


def _axis_reads(reads, shape, held):
    """{name of AXES: tensor} of (rows, columns), refinement.AxisRead at `shape` points of `held` values; None: all, in order."""
    axes = [_axis_read(*axis) for axis in zip(reads, shape, held, strict=True)]
    return dict(zip(AXES, (part for kind in zip(*axes, strict=True) for part in kind), strict=True))


def _axis_read(read, count, held):
    """(low, high, share) of one axis: int32, int32, float32 [count]."""
    low = torch.arange(count) if read is None else read.lo
    high = low if read is None or read.hi is None else read.hi
    share = torch.zeros(count, dtype=torch.float32) if read is None or read.frac is None else read.frac
    if {len(low), len(high), len(share)} != {count} or min(low.min(), high.min()) < 0 or max(low.max(), high.max()) >= held:
        raise ValueError(f'{count} points read {len(low)} values out of {held}: these are points of other grids')
    return low.to(torch.int32).contiguous(), high.to(torch.int32).contiguous(), share.contiguous()
