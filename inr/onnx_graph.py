"""One image as an ONNX graph: positions in, pixels out, any H x W and window. Opset 17; needs the package onnx.

Inputs, all float64: `u` [W] and `v` [H], where the columns and rows lie in units of the trained image (grid.Lattice has them), and
`density` [2], points per unit along x and y: what a denser picture refines by and, where rows of coordinate features have a footprint, what
the size of a pixel follows from. Output: `image` [1, img_channels, H, W], float32 in about
[-1, 1]. The plan of which points of every grid a picture needs (refinement.plan) is part of the graph, in float64 as there. A fourth input,
where it is wanted, is `ws` [1, num_ws, w_dim] in float32; left out, it is the w that the image was taken of.

Legend: C channels, n points along an axis or rows of a Fourier matrix.
"""

import numpy as np

from inr.fixed import NoFunction
from inr.refinement import _SNAP

OPSET, IR_VERSION = 17, 8
INPUTS = ('u', 'v', 'density')


class Value:
    """A tensor of a Graph, with the arithmetic that the plan needs; numbers beside it are taken in its own type."""

    def __init__(self, graph, name, dtype):
        self.graph, self.name, self.dtype = graph, name, dtype

    def op(self, kind, *others, dtype=None, **attributes):
        """The result of an ONNX operator of this and others, Values or what NumPy takes."""
        others = [other if isinstance(other, Value) else self.graph.constant(other, self.dtype) for other in others]
        return self.graph.node(kind, [self, *others], dtype or self.dtype, **attributes)

    def __add__(self, other):
        return self.op('Add', other)

    def __sub__(self, other):
        return self.op('Sub', other)

    def __mul__(self, other):
        return self.op('Mul', other)

    def __truediv__(self, other):
        return self.op('Div', other)

    def __radd__(self, other):
        return self + other

    def __rmul__(self, other):
        return self * other

    def __rsub__(self, other):
        return self * -1 + other

    def __mod__(self, length):
        """The remainder as Python has it, of floats: from 0 on and below length."""
        return self - (self / length).op('Floor') * length

    def __rtruediv__(self, other):
        return self.graph.constant(other, self.dtype) / self

    def __gt__(self, other):
        return self.op('Greater', other, dtype=bool)

    def __lt__(self, other):
        return self.op('Less', other, dtype=bool)

    def __and__(self, other):
        return self.op('And', other, dtype=bool)

    def where(self, chosen, other):
        """chosen where this holds, else other; chosen is a Value."""
        other = other if isinstance(other, Value) else self.graph.constant(other, chosen.dtype)
        return self.graph.node('Where', [self, chosen, other], chosen.dtype)

    def cast(self, dtype):
        from onnx import helper

        return self.op('Cast', dtype=dtype, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, *shape):
        return self.graph.node('Reshape', [self, self.graph.constant(shape, np.int64)], self.dtype)


class Graph:
    """Nodes and constants of a graph as they come to be."""

    def __init__(self):
        self.nodes, self.constants, self.known = [], [], {}

    def node(self, kind, inputs, dtype, outputs=1, **attributes):
        """One operator's first result as a Value, or a list of them where `outputs` is more than one."""
        from onnx import helper

        names = [f'{kind}_{len(self.nodes)}' + ('' if outputs == 1 else f'_{i}') for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, [value.name if value else '' for value in inputs], names, **attributes))
        values = [Value(self, name, dtype) for name in names]
        return values[0] if outputs == 1 else values

    def constant(self, value, dtype=np.float32):
        from onnx import numpy_helper

        array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        key = (array.dtype, np.shape(value), array.tobytes()) if array.size < 5 else None
        if key not in self.known or key is None:
            name = f'constant_{len(self.constants)}'
            self.constants.append(numpy_helper.from_array(array.reshape(np.shape(value)), name))
            self.known[key] = name
        return Value(self, self.known[key], dtype)


# ---- The plan, as in refinement.py


def _snapped(t):
    nearest = t.op('Round')
    off = (t - nearest).op('Abs') - t.op('Abs').op('Max', 1) * _SNAP
    return (off > 0).where(t, nearest)


def _split(t):
    t = _snapped(t)
    index = t.op('Floor')
    return index.cast(np.int64), (t - index).cast(np.float32)


def _trained_index(position, resolution, shift):
    return _split(_snapped(position * resolution) - shift)


def _within(t, behind, coarser):
    """coarser: cells of the coarser grid along the axis"""
    first, end, last = -behind, coarser - behind, coarser.op('Ceil') - 1
    t = ((t > -1) & (t < 0)).where(((t + 1) / (first + 1) - 1).op('Min', 0), t)
    beyond = last + (t - end).op('Max', 0) / (last + 1 - end)
    ragged = (end > last) & (end < last + 1)
    return ((t > last) & (t < last + 1) & ragged).where(beyond, t)


def _cell(position, resolution, far_corner):
    t = _snapped(position * resolution)
    return (t.op('Ceil') - 1 if far_corner else t.op('Floor')).cast(np.int64)


def _pixel(resolution, density, form, grids):
    """Length of the cell that a point of a grid stands for, [1] in float32 and in the model's coordinates; see refinement._fineness."""
    factor = (density / grids[-1]).op('Max', 1) if resolution == grids[-1] or form.refine == 'all' else density * 0 + 1
    return (form.convention.unit / density.op('Min', factor * resolution)).cast(np.float32)


def _held_cells(index, count, wraps):
    return index.op('Mod', count) if wraps else index.op('Max', 0).op('Min', count - 1)


def _plan_axis(position, density, form, grids, far_corner, wraps, extent):
    """refinement._plan_axis in the graph: of each grid, coarse to fine, (positions, read of the parent grid or None, read of its cells)."""
    graph, shift, sign, axis, middles = position.graph, int(far_corner), -1 if far_corner else 1, [], form.middles
    factor = _snapped(density / grids[-1]).op('Max', 1)
    if middles:
        to_middle = (0.5 / density - 0.5 / grids[-1]) * sign
        middles = form.refine != 'smooth'
        position = position + ((factor > 1).where(graph.constant(0, np.float64), to_middle) if middles else to_middle)
    for level in reversed(range(len(grids))):
        resolution = grids[level]
        moves = form.refine == 'all' or (middles and level == len(grids) - 1)
        lead = (0.5 / resolution - 0.5 / grids[-1] + (0.5 / grids[-1] if middles else 0)) * sign
        sampled = position - (1 - 1 / factor) * lead if moves else position
        index, frac = _trained_index(sampled, resolution, shift)
        lo, hi = (_held_cells(each, round(resolution * extent), wraps) for each in (index, index + 1))
        if level == 0:
            axis.append((sampled, None, (lo, hi, frac)))
            break
        coarser = factor * grids[level - 1] if form.refine == 'all' else graph.constant(grids[level - 1], np.float64)
        middle = (0.5 / grids[level - 1] - 0.5 / resolution) * sign
        if form.upsampling == 'linear':
            behind = middle * grids[level - 1] + shift
            t = _snapped(position * coarser) - behind
            read, share = _split(t if wraps else _within(t, behind, coarser * extent))
        else:
            read, share = _cell(position, coarser, far_corner), None
            if form.refine == 'smooth' and level == len(grids) - 1:
                between, part = _trained_index(position - middle, coarser, shift)
                denser, step = factor > 1, (factor - 1).op('Min', 1).op('Max', 1e-30).cast(np.float32)
                part = ((part - 0.5) / step + 0.5).op('Max', 0).op('Min', 1)
                read, share = denser.where(between, read), denser.where(part, graph.constant(0))
        needed, read = _needed(read, share)
        axis.append((sampled, (*read, share), (lo, hi, frac)))
        position = (needed.cast(np.float64) + shift) / coarser
    return axis[::-1]


def _needed(read, share):
    """(sorted distinct indices, (lo, hi) among them); hi is None without share."""
    graph = read.graph
    both = [read] if share is None else [read, read + (share > 0).cast(np.int64)]
    wanted = graph.node('Concat', both, np.int64, axis=0)
    needed, _first, among, _counts = graph.node('Unique', [wanted], np.int64, outputs=4, sorted=1)
    if share is None:
        return needed, (among, None)
    return needed, graph.node('Split', [among], np.int64, outputs=2, axis=0)


# ---- Features and layers


def _part(graph, tensor, columns, *shape):
    """Columns (a slice) of a matrix, or all of a tensor (None), in a shape. tensor: of NumPy, or a Value that depends on w."""
    if not isinstance(tensor, Value):
        return graph.constant((tensor if columns is None else tensor[:, columns]).reshape(shape))
    if columns is not None:
        start, stop = ([columns.start or 0], [2**31 if columns.stop is None else columns.stop])
        tensor = graph.node('Slice', [tensor, *(graph.constant(each, np.int64) for each in (start, stop, [1]))], np.float32)
    return tensor.reshape(*shape)


def _read(x, reads):
    """Values [1, C, h, w] at the points of `reads`, (lo, hi, share) of rows and of columns: [1, C, H, W]."""
    for axis, (lo, hi, share) in zip((2, 3), reads, strict=True):
        low = x.op('Gather', lo, axis=axis)
        if share is None:
            x = low
            continue
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        x = low + (x.op('Gather', hi, axis=axis) - low) * share.reshape(*shape)
    return x


def _kept(block, along, pixel):
    """What a pixel leaves of each wave, [1, n, 1, 1]; see footprint.kept. along: rows as _features has them; pixel: (width, height), [1]"""
    squares = [side * side for side in pixel]
    if block.footprint == 'larger':
        squares = [(square - (2 / block.grid) ** 2).op('Max', 0) for square in squares]
    x, y = (rows * rows * square for rows, square in zip(along, squares, strict=True))
    return ((x + y) / -24).op('Exp')


def _features(block, tensors, x, y, cells, pixel, wraps):
    """Coordinate features [1, E, H, W] of a block at x [1, 1, 1, W] and y [1, 1, H, 1]; see fourier.py for their order."""
    graph, columns = x.graph, []
    zero = (x + y) * 0
    if block.raw:
        columns += [zero if wrap else zero + axis for axis, wrap in zip((x, y), wraps, strict=True)]
    if block.rows:
        rows, shift = tensors['rows'], tensors['shift']
        along = [_part(graph, rows, slice(i, i + 1), 1, -1, 1, 1) for i in (0, 1)]
        angles = x * along[0] + y * along[1]
        angles = angles + _part(graph, shift, None, 1, -1, 1, 1) if isinstance(shift, Value) or shift.any() else angles
        waves = [angles.op(kind) for kind in ('Sin', 'Cos')[: 1 + block.cosine]]
        kept = _kept(block, along, pixel) if block.footprint else None
        columns += waves if kept is None else [wave * kept for wave in waves]
    if block.constants:
        columns.append(_read(graph.constant(tensors['constants']), cells))
    return graph.node('Concat', columns, np.float32, axis=1) if len(columns) > 1 else columns[0]


def _product(x, weight, bias, columns, count):
    """Those columns, `count` of them, of a matrix times x, plus the bias, if there is one."""
    kernel = _part(x.graph, weight, columns, -1, count, 1, 1)
    return x.graph.node('Conv', [x, kernel, *([] if bias is None else [_part(x.graph, bias, None, -1)])], np.float32)


def _clamped(x, limit):
    return x if limit is None else x.op('Max', -limit).op('Min', limit)


def _block(block, tensors, x, image, features, reads):
    """(x, image) behind a block; reads: of the grid below, for one that upsamples."""
    for index, uses_coords in enumerate(block.uses_coords):
        weight, bias = tensors[f'layer{index}.weight'], tensors[f'layer{index}.bias']
        below = block.channels if index else block.in_channels
        terms = []
        if below:
            doubles = block.upsamples and index == 0
            terms.append(_product(x, weight, None if doubles else bias, slice(0, below), below))
            terms = [_read(terms[0], reads) + _part(x.graph, bias, None, -1, 1, 1)] if doubles else terms
        if uses_coords:
            terms.append(_product(features, weight, None if below else bias, slice(below, None), block.features))
        x = terms[0] if len(terms) == 1 else terms[0] + terms[1]
        x = _clamped(x.op('LeakyRelu', alpha=block.slope) * block.gain, block.clamp)
    rgb = _clamped(_product(x, tensors['torgb.weight'], tensors['torgb.bias'], None, block.channels), block.rgb_clamp)
    if image is None:
        return x, rgb
    return x, (_read(image, reads) if block.upsamples else image) + rgb


# ---- The model


def to_onnx(function, of_w=None):
    """onnx.ModelProto of a fixed.Function.

    of_w: (G, ws, noise_mode) that it was taken of, for a graph with w as an input; None holds the weights of this w alone
    Raises NoFunction for one that has what Form.special names, ImportError without onnx.
    """
    form, graph = function.form, Graph()
    if form.special:
        raise NoFunction(f'the graph has no {form.special}; --format=function has')
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    u, v, density = (Value(graph, name, np.float64) for name in INPUTS)
    held = {name: value.numpy() for name, value in function.tensors.items()}
    if of_w is not None:
        from inr.onnx_weights import W, weights_of_w

        held |= weights_of_w(graph, *of_w)
    grids = sorted({block.grid for block in form.blocks})
    along = [graph.node('Slice', [density, *(graph.constant([i], np.int64) for i in (axis, axis + 1))], np.float64) for axis in (0, 1)]
    columns, rows = (
        _plan_axis(position, density, form, grids, *options)
        for position, density, *options in zip((u, v), along, (False, form.lower_corner), form.periodic, form.extent, strict=True)
    )
    x = image = None
    for block in form.blocks:
        prefix = f'b{block.name}.'
        tensors = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
        (at_u, read_u, cells_u), (at_v, read_v, cells_v) = (axis[grids.index(block.grid)] for axis in (columns, rows))
        features = None
        if block.features:
            at_u, at_v = form.convention.coordinates(at_u, at_v)
            pixel = [_pixel(block.grid, each, form, grids) for each in along]
            at = at_u.cast(np.float32).reshape(1, 1, 1, -1), at_v.cast(np.float32).reshape(1, 1, -1, 1)
            features = _features(block, tensors, *at, (cells_v, cells_u), pixel, form.periodic)
        x, image = _block(block, tensors, x, image, features, (read_v, read_u))
    graph.nodes.append(helper.make_node('Tanh' if form.activation == 'tanh' else 'Identity', [image.name], ['image']))
    shapes = {'u': ['W'], 'v': ['H'], 'density': [2]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, shapes[name]) for name in INPUTS]
    if of_w is not None:
        ws = of_w[1].detach().cpu().float().numpy()
        inputs.append(helper.make_tensor_value_info(W, TensorProto.FLOAT, ws.shape))
        graph.constants.append(numpy_helper.from_array(ws, W))  # as what it is where it is left out
    made = helper.make_graph(
        graph.nodes, 'image as a function', inputs,
        [helper.make_tensor_value_info('image', TensorProto.FLOAT, [1, form.img_channels, 'H', 'W'])], graph.constants, doc_string=__doc__,
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid('', OPSET)], ir_version=IR_VERSION, producer_name='inr')
    onnx.checker.check_model(model)
    return model


def inputs_of(height, width, window=(0, 0, 1, 1), lower_corner=True, extent=(1, 1)):
    """The inputs {name: float64 array} that draw a picture of height x width; the same five lines do it without this package.

    extent: sides of the trained image in units, see grid.Convention
    """
    x0, y0, x1, y1 = (end * side for end, side in zip(window, (*extent, *extent), strict=True))
    u = x0 + (x1 - x0) * np.arange(width, dtype=np.float64) / width
    v = y0 + (y1 - y0) * (np.arange(height, dtype=np.float64) + lower_corner) / height
    return {'u': u, 'v': v, 'density': np.array([width / (x1 - x0), height / (y1 - y0)])}
