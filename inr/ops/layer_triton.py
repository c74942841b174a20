"""The kernels of layer.Fused on a GPU, in Triton: an FMM layer in one pass over its activations, its derivative in one more.

`modulated` puts the weights of all images together; `forward` multiplies, adds coordinates, bias and values from the grid below, and
activates before a tile leaves the registers; `backward` does the activation's derivative with the sums that biases and the grid below want.
Weights are not made inside `forward`: each of its tiles of points would make them again (docs/decisions.md). Sums have a fixed order, so
that a step repeats bit for bit. Importing this needs triton; TRITON_INTERPRET=1 runs it on a CPU, as the tests do.

Legend: N images, C_out (rows) and C channels, E coordinate features, K either, H and W rows and columns of points.
"""

import contextlib
import math

import torch
import triton
import triton.language as tl

from inr.ops.layer import limits, size_of

DOUBLINGS = ('nearest',)  # see layer.DOUBLINGS
ALIGNED = 16  # numbers: parts of rows of weights are filled up to multiples of so many, else they are read one by one

TURNS = 8  # at most so many blocks of points does one program of backward_kernel, one after the other


@triton.jit
def rounded_to_tf32(v):
    """float32 with 10 bits behind the point, to nearest: tensor cores leave out the other 13, which makes every product smaller."""
    bits = v.to(tl.uint32, bitcast=True)
    return tl.where(v == v, ((bits + 0x1000) & 0xFFFFE000).to(tl.float32, bitcast=True), v)


@triton.jit
def add_product(acc, weight, x, in_rows, m, p, K, wide, points, PRECISION: tl.constexpr, BK: tl.constexpr):
    """acc + W x of one image: weight at its rows m [BM, 1], of which `wide` >= K numbers may be read; x [K, points] at p."""
    for first in range(0, K, BK):
        k = first + tl.arange(0, BK)
        w = tl.load(weight + m + k[None, :], mask=in_rows & (k[None, :] < wide), other=0.0)
        v = tl.load(x + k[:, None].to(tl.int64) * points + p[None, :], mask=(k[:, None] < K) & (p[None, :] < points), other=0.0)
        if PRECISION == 'tf32' and w.dtype == tl.float32:
            w, v = rounded_to_tf32(w), rounded_to_tf32(v)
        acc = tl.dot(w, v, acc, input_precision=PRECISION)
    return acc


@triton.jit
def layer_kernel(
    y, weight, bias, x, features, parent, rows, C, wide_C, E, wide_E, H, W, w_image, w_row, b_image, x_image, e_image, slope, gain, clamp,
    UP: tl.constexpr, HAS_X: tl.constexpr, HAS_FEATURES: tl.constexpr, HAS_PARENT: tl.constexpr, HAS_BIAS: tl.constexpr,
    CLAMPS: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A tile of BM rows and BN points of image n. *_image, w_row: strides; a row of W has W_x in wide_C numbers, W_e in wide_E."""
    points, row_tiles = H * W, tl.cdiv(rows, BM)
    tile, n = tl.program_id(0), tl.program_id(1).to(tl.int64)
    m, p = tile % row_tiles * BM + tl.arange(0, BM), tile // row_tiles * BN + tl.arange(0, BN)
    in_rows = (m < rows)[:, None]
    acc = tl.zeros([BM, BN], tl.float32)
    at = m[:, None] * w_row
    if HAS_X:
        acc = add_product(acc, weight + n * w_image, x + n * x_image, in_rows, at, p, C, wide_C, points, PRECISION, BK)
    if HAS_FEATURES:
        acc = add_product(acc, weight + n * w_image + wide_C, features + n * e_image, in_rows, at, p, E, wide_E, points, PRECISION, BK)
    inside = in_rows & (p < points)[None, :]
    plane = n * rows + m[:, None]
    if HAS_BIAS:
        acc += tl.load(bias + n * b_image + m, mask=m < rows, other=0.0).to(tl.float32)[:, None]
    if HAS_PARENT:
        cell = p if UP == 1 else p // W // UP * (W // UP) + p % W // UP
        acc += tl.load(parent + plane * (points // (UP * UP)) + cell[None, :], mask=inside, other=0.0).to(tl.float32)
    acc = tl.where(acc > 0, acc, acc * slope) * gain
    if CLAMPS:
        acc = tl.where(acc > clamp, clamp, acc)
        acc = tl.where(acc < -clamp, -clamp, acc)
    tl.store(y + plane * points + p[None, :], acc.to(y.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(
    dz, db, pooled, dy, y, H, W, slope, gain, clamp, UP: tl.constexpr, CLAMPS: tl.constexpr, BLOCK: tl.constexpr, TURNS: tl.constexpr
):  # fmt: skip
    """TURNS times BLOCK x UP x UP points of one channel of one image, and their sum."""
    plane, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    w = W // UP
    cells = H // UP * w
    beside = tl.arange(0, UP)[None, :]
    total = tl.zeros([BLOCK], tl.float32)
    for turn in range(0, TURNS):
        q = (part * TURNS + turn) * BLOCK + tl.arange(0, BLOCK)
        inside = (q < cells)[:, None] & (beside < UP)
        sums = tl.zeros([BLOCK], tl.float32)
        for row in tl.static_range(UP):
            point = q if UP == 1 else (q // w * UP + row) * W + q % w * UP  # known to lie side by side only if written so
            at = plane * H * W + point[:, None] + beside
            out = tl.load(y + at, mask=inside, other=0.0).to(tl.float32)
            slopes = tl.where(out > 0, gain, gain * slope)
            if CLAMPS:
                slopes = tl.where(tl.abs(out) < clamp, slopes, 0.0)
            d = tl.load(dy + at, mask=inside, other=0.0).to(tl.float32) * slopes
            tl.store(dz + at, d.to(dz.dtype.element_ty), mask=inside)
            sums += tl.sum(d, axis=1)
        if UP > 1:
            tl.store(pooled + plane * cells + q, sums.to(pooled.dtype.element_ty), mask=q < cells)
        total += sums
    tl.store(db + plane * tl.num_programs(1) + part, tl.sum(total, axis=0))


@triton.jit
def modulate_kernel(out, shared, left, right, rows, K, rank, out_row, BK: tl.constexpr):
    """A row of W of image n: shared * (1 + A B), divided by its norm. All but `out` lie contiguous."""
    row, n = tl.program_id(0), tl.program_id(1).to(tl.int64)
    square = tl.zeros([BK], tl.float32)
    scale = 1.0
    for turn in tl.static_range(2):  # the norm, then the numbers
        for first in range(0, K, BK):
            k = first + tl.arange(0, BK)
            inside = k < K
            factor = tl.full([BK], 1.0, tl.float32)
            for r in range(0, rank):
                a = tl.load(left + (n * rows + row) * rank + r)
                factor += a * tl.load(right + (n * rank + r) * K + k, mask=inside, other=0.0)
            v = tl.load(shared + row * K + k, mask=inside, other=0.0) * factor
            if turn == 0:
                square += v * v
            else:
                tl.store(out + (n * rows + row) * out_row + k, (v * scale).to(out.dtype.element_ty), mask=inside)
        if turn == 0:
            scale = 1.0 / tl.sqrt(tl.sum(square, axis=0) + 1e-8)


def modulated(shared, left, right, dtype):
    """W [N, C_out, K] of dtype: rows of shared * (1 + A B), normalized; shared [C_out, K], left A [N, C_out, r], right B [N, r, K]."""
    (N, rows, rank), K = left.shape, right.shape[2]
    out = torch.empty([N, rows, _aligned(K)], dtype=dtype, device=left.device)[:, :, :K]
    parts = [part.to(torch.float32).contiguous() for part in (shared, left, right)]
    with _on(left):
        modulate_kernel[rows, N](out, *parts, rows, K, rank, out.stride(1), BK=max(16, min(1024, triton.next_power_of_2(K))))
    return out


def forward(weight, bias, x, features, parent, up, act):
    """layer.plain's y [N, C_out, H, W], without gradients; its arguments, in float32, bfloat16 or float16."""
    (N, rows, K), size = weight.shape, size_of(x, features, parent, up)
    C = 0 if x is None else x.shape[1]
    if any(number % ALIGNED for number in (weight.stride(1), C, K - C)) or weight.stride(2) != 1:
        weight = _realigned(weight, C)
    x, features, parent, bias = (None if part is None else part.contiguous() for part in (x, features, parent, bias))
    y = torch.empty([N, rows, *size], dtype=weight.dtype, device=weight.device)
    capability = torch.cuda.get_device_capability(y.device) if y.is_cuda else (0, 0)
    tile = tile_sizes(rows, y.dtype, capability, precision() == 'ieee')
    grid = triton.cdiv(rows, tile['BM']) * triton.cdiv(size[0] * size[1], tile['BN']), N
    if 0 in (*grid, *size):
        return y

    own = None if bias is None or bias.ndim == 1 else bias, x, features
    strides = [0 if part is None or len(part) == 1 else part.stride(0) for part in own]

    with _on(y):
        layer_kernel[grid](
            y, weight, _any(bias, y), _any(x, y), _any(features, y), _any(parent, y), rows, C, _aligned(C), K - C, _aligned(K - C), *size,
            weight.stride(0), weight.stride(1), *strides, *limits(act, y.dtype), UP=2 if up else 1, HAS_X=C > 0, HAS_FEATURES=K > C,
            HAS_PARENT=parent is not None, HAS_BIAS=bias is not None, CLAMPS=act.clamp is not None, PRECISION=precision(), **tile,
        )  # fmt: skip
    return y


def backward(dy, y, act, up):
    """(dz [N, C_out, H, W], its sums over points [N, C_out] in float32, what it is for `parent`) for dy, a gradient of y."""
    up = 2 if up else 1
    (N, rows, H, W), dy, dz = y.shape, dy.contiguous(), torch.empty_like(y)
    pooled = dz if up == 1 else torch.empty([N, rows, H // up, W // up], dtype=y.dtype, device=y.device)
    cells = H // up * (W // up)
    BLOCK = min(2048 // up**2, triton.next_power_of_2(max(cells, 1)))
    turns = max(min(TURNS, triton.cdiv(cells, BLOCK)), 1)
    parts = triton.cdiv(cells, turns * BLOCK)
    db = torch.zeros([N, rows, parts], dtype=torch.float32, device=y.device)
    if y.numel():
        with _on(y):
            backward_kernel[N * rows, parts](
                dz, db, pooled, dy, y, H, W, *limits(act, y.dtype), UP=up, CLAMPS=act.clamp is not None, BLOCK=BLOCK, TURNS=turns,
                num_warps=8,
            )  # fmt: skip
    return dz, db.sum(2), pooled


def tile_sizes(rows, dtype, capability, ieee):
    """Tile and launch options of layer_kernel; benchmarks/bench_fmm.py --tiles measures others.

    rows: C_out; capability: of the GPU, (9, 0) for an H100; ieee: whether float32 is multiplied in full
    """
    if capability < (8, 0) or (dtype == torch.float32 and ieee):
        BM, BN, BK, stages = 128, 128, 16, 2  # without tensor cores: 64 sums a thread, or reading the tiles takes longer than multiplying
    else:
        BM, BN, BK, stages = 128, 128, 32 if dtype == torch.float32 else 64, 3
    BM = min(BM, max(16, triton.next_power_of_2(rows)))
    return dict(BM=BM, BN=BN, BK=BK, num_warps=8 if BM * BN >= 128 * 128 else 4, num_stages=stages)


def precision():
    """How float32 is multiplied: 'tf32' where PyTorch's own products may, else 'ieee'."""
    matmul = torch.backends.cuda.matmul
    named = getattr(matmul, 'fp32_precision', None)  # before PyTorch 2.9 there is allow_tf32 alone; later a host may set either
    return 'tf32' if (matmul.allow_tf32 if named is None else named == 'tf32') else 'ieee'


def _aligned(count):
    return math.ceil(count / ALIGNED) * ALIGNED


def _realigned(weight, C):
    """The same with W_x and W_e, each, filled up with zeros to a multiple of ALIGNED numbers."""
    N, rows, K = weight.shape
    wide = weight.new_zeros([N, rows, _aligned(C) + _aligned(K - C)])
    wide[:, :, :C] = weight[:, :, :C]
    wide[:, :, _aligned(C) : _aligned(C) + K - C] = weight[:, :, C:]
    return wide


def _any(tensor, other):
    """What a kernel is given for a tensor that it does not read."""
    return other if tensor is None else tensor


def _on(tensor):
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
