"""One image as a function of its own: the INR of one w, its weights known, without what made them.

`function_of` takes a `Function` out of a generator; render.py draws it as it draws a generator. function.py keeps it in a file.

Legend: C channels, E coordinate features, n rows of a Fourier matrix, R resolution of a grid.
"""

import json
from dataclasses import asdict, dataclass

import torch
from torch import nn

from inr import grid, render
from inr.fmm import Weights
from inr.fourier import CoordinateFeatures, FeatureSpec
from inr.ops import dispatch
from inr.ops.block_cpu import BlockLayer
from inr.ops.layer import product
from inr.refinement import ParentUpsample
from inr.synthesis import SynthesisNetwork
from torch_utils.ops import bias_act

VERSION, EXTENT_VERSION = 1, 2  # of files of squares and of other pictures, which readers of the first alone would squeeze
METADATA = 'inr_function'  # where a file's header is
ACTIVATIONS = {'none': None, 'tanh': torch.tanh}


class NoFunction(ValueError):
    """This generator, or this file, has no image that is a function of its own."""


@dataclass(frozen=True)
class BlockForm:
    """Shape of one block: its name, the grid it runs on, channels from below (0: none) and its own, and whether it reads the grid below.

    uses_coords: of each layer, whether its last columns are for coordinate features. These are, in this order: x and y if `raw`, the sines
    of `rows` phases W p, their cosines if `cosine`, `constants` numbers of each of the grid's cells; all 0 where a block has none
    slope, gain, clamp: y = clamp(gain * lrelu(z)) of every layer; rgb_clamp: of to-RGB; None for no limit
    footprint: see fourier.FeatureSpec
    """

    name: int
    grid: int
    in_channels: int
    channels: int
    uses_coords: list
    upsamples: bool
    raw: bool
    rows: int
    cosine: bool
    constants: int
    slope: float
    gain: float
    clamp: float | None
    rgb_clamp: float | None
    footprint: str | None = None

    @property
    def layers(self):
        """Number of layers, to-RGB apart."""
        return len(self.uses_coords)

    @property
    def features(self):
        """E."""
        return 2 * self.raw + self.rows * (1 + self.cosine) + self.constants

    def shapes(self, img_channels, extent):
        """{name: shape} of the block's tensors, without the block's own name; extent: see Form"""
        found = {'rows': (self.rows, 2), 'shift': (self.rows,)} if self.rows else {}
        if self.constants:
            found['constants'] = (1, self.constants, *grid.shape_of(self.grid, extent))
        channels = self.in_channels
        for index, uses_coords in enumerate(self.uses_coords):
            found[f'layer{index}.weight'] = (self.channels, channels + self.features * uses_coords)
            found[f'layer{index}.bias'] = (self.channels,)
            channels = self.channels
        return {**found, 'torgb.weight': (img_channels, channels), 'torgb.bias': (img_channels,)}


@dataclass(frozen=True)
class Form:
    """What a function is, beside its weights; the header of its file.

    lower_corner, centred, middles, periodic, extent: see grid.Convention; upsampling, refine: see refinement.plan
    activation: of the image, one of ACTIVATIONS
    window: where a viewer begins; source: what it was taken from, for people
    """

    img_resolution: int
    img_channels: int
    lower_corner: bool
    centred: bool
    upsampling: str
    activation: str
    blocks: list
    refine: str = render.DEFAULT_REFINEMENT
    window: tuple = grid.WHOLE
    source: str = ''
    version: int = VERSION
    middles: bool = False
    periodic: tuple = (False, False)
    extent: tuple = (1, 1)

    @property
    def convention(self):
        """grid.Convention."""
        return grid.Convention(self.lower_corner, self.centred, self.middles, self.periodic, self.extent)

    @property
    def special(self):
        """What of this function render.py alone draws, no graph or page, in words; None for nothing."""
        return 'bilinear reads of coarser grids' if self.upsampling == 'bilinear' else None


class FixedCoordinates(CoordinateFeatures):
    """The coordinate features of a block whose rows are known."""

    def __init__(self, form, tensors, wraps, extent):
        nn.Module.__init__(self)
        self.spec = FeatureSpec(raw=form.raw, cosine=form.cosine, constants=form.constants, footprint=form.footprint)
        self.num_features, self.resolution, self.wraps, self.extent = form.features, form.grid, wraps, extent
        self.register_buffer('fixed_rows', tensors.get('rows', torch.zeros(0, 2)))
        self.register_buffer('fixed_shift', tensors.get('shift', torch.zeros(0)))
        if form.constants:
            self.register_buffer('const_embs', tensors['constants'])

    def rows(self, w):
        return self.fixed_rows[None], self.fixed_shift[None] if self.fixed_shift.any() else None


class FunctionBlock(nn.Module):
    """A block of layers with known weights; called as blocks.SynthesisBlock is. tensors: of BlockForm.shapes; whole: Form"""

    def __init__(self, form, tensors, whole):
        super().__init__()
        self.spec, self.upsampling = form, whole.upsampling
        self.coords = FixedCoordinates(form, tensors, whole.periodic, whole.extent) if form.features else None
        for name, value in tensors.items():
            if name.endswith(('weight', 'bias')):
                self.register_buffer(name.replace('.', '_'), value)

    def chain(self, w=None, affine=None):
        """(BlockLayers, that of to-RGB); w and affine say nothing."""
        form = self.spec

        def layer(name, *options):
            return BlockLayer(Weights(getattr(self, f'{name}_weight')[None]), getattr(self, f'{name}_bias')[None], *options)

        layers = [layer(f'layer{i}', used, form.slope, form.gain, form.clamp) for i, used in enumerate(form.uses_coords)]
        return layers, layer('torgb', False, 1.0, 1.0, form.rgb_clamp)

    def forward(self, x, img, ws, points, noise_mode='const', force_fp32=False, impl='auto', keep=True):
        """x [1, C, h, w] or None, img likewise -> (x [1, C, H, W], img [1, img_channels, H, W]), in float32; ws says nothing."""
        upsample = ParentUpsample(points, self.upsampling) if self.spec.upsamples else None
        return dispatch.compute(
            impl, self, x, img, ws, points, upsample, torch.float32, keep, lambda: self._by_layers(x, img, points, upsample, impl)
        )  # fmt: skip

    def _by_layers(self, x, img, points, upsample, impl):
        features = None if self.coords is None else self.coords(points, None)
        layers, to_rgb = self.chain()
        for index, layer in enumerate(layers):
            x = dispatch.layer(
                layer.weights.matrix, layer.bias, x, features if layer.uses_coords else None, None if index else upsample, None,
                layer.slope, layer.gain, layer.clamp, impl,
            )  # fmt: skip
        rgb = bias_act.bias_act(product(to_rgb.weights.matrix, x), to_rgb.bias[0], clamp=to_rgb.clamp)
        return x, rgb if img is None else (upsample(img) if upsample else img) + rgb


class Function(nn.Module):
    """One image; render.py draws it as it draws a generator's, with `ws` for its latents. form: Form; tensors: {name: tensor}"""

    def __init__(self, form, tensors):
        super().__init__()
        self.form, self.tensors = form, {name: value.float() for name, value in tensors.items()}
        blocks = []
        for block in form.blocks:
            own = {name: self.tensors[f'b{block.name}.{name}'] for name in block.shapes(form.img_channels, form.extent)}
            blocks.append(FunctionBlock(block, own, form))
        self.synthesis = SynthesisNetwork(
            0, form.img_resolution, form.img_channels, blocks,
            form.convention, form.upsampling, activation=ACTIVATIONS[form.activation],
        )  # fmt: skip
        self.num_ws, self.w_dim = self.synthesis.num_ws, 0
        self.img_resolution, self.img_channels, self.img_size = form.img_resolution, form.img_channels, self.synthesis.img_size

    @property
    def ws(self):
        """[1, num_ws, 0]: what is left of w."""
        return torch.zeros([1, self.num_ws, 0], device=next(self.buffers()).device)

    def render(self, height, width, window=None, refine=None, tile=None):
        """The picture [1, img_channels, height, width] in float32; arguments as of render.render, None as the file says."""
        return render.render(self, self.ws, height, width, window or self.form.window, refine or self.form.refine, tile)

    def to_bytes(self, half=True):
        """The file that function.py reads: weights in half precision where they fit and `half` says so, Fourier rows and phases in float32,
        which multiply coordinates of any size."""
        from safetensors.torch import save

        def packed(name, value):
            keeps = not half or name.endswith(('.rows', '.shift')) or not value.half().isfinite().all()
            return (value if keeps else value.half()).contiguous()

        tensors = {name: packed(name, value) for name, value in self.tensors.items()}
        header = asdict(self.form)
        if header['extent'] == (1, 1):
            del header['extent']  # as all files were before there were others
        return save(tensors, metadata={'format': 'pt', METADATA: json.dumps(header)})

    def to_onnx(self, of_w=None):
        """The same as an ONNX graph, the bytes of a file; see onnx_graph.to_onnx. Raises ImportError without the package onnx."""
        from inr import onnx_graph

        return onnx_graph.to_onnx(self, of_w).SerializeToString()


# ---- From a generator


@torch.no_grad()
def function_of(G, ws, noise_mode='const', **more):
    """The Function that G draws for ws [1, num_ws, w_dim].

    noise_mode: 'none' leaves spatial noise out; with 'const' a generator that has any is refused. more: refine, window, source of Form
    Raises NoFunction for a generator that draws no function of a point.
    """
    if not render.supports(G):
        raise NoFunction(f'{type(G).__module__}.{type(G).__qualname__} draws no function of a point; a generator of inr does')
    synthesis = G.synthesis
    if not synthesis.pointwise:
        raise NoFunction('the pixels of this network depend on each other, so none is a function of its point')
    forms, tensors = parts_of(G, ws, noise_mode)
    activation = next(name for name, each in ACTIVATIONS.items() if each is synthesis.activation)
    convention, upsampling = synthesis.pyramid.convention, synthesis.pyramid.upsampling
    form = Form(
        synthesis.img_resolution, synthesis.img_channels, convention.lower_corner, convention.centred, upsampling, activation,
        forms, middles=convention.middles, periodic=convention.periodic, extent=convention.extent,
        version=VERSION if convention.extent == (1, 1) else EXTENT_VERSION, **more,
    )  # fmt: skip
    return Function(form, {name: value.detach().cpu() for name, value in tensors.items()}).eval()


def parts_of(G, ws, noise_mode):
    """(list of BlockForm, {name: tensor}) of G's blocks for ws."""
    forms, tensors, first, own = [], {}, 0, ws.float().unbind(1)
    for block in map(G.synthesis.get_submodule, G.synthesis.block_names):
        form, held = _block_of(block, own[first : first + block.spec.layers + 1], noise_mode)
        forms.append(form)
        tensors |= {f'b{form.name}.{name}': value for name, value in held.items()}
        first += block.spec.layers
    return forms, tensors


def _weight_of(layer, coords):
    """Weights [C_out, C_in] of a layer, those with which coords weights its rows down among them."""
    weight, damping = layer.weights.materialize()[0], getattr(coords, 'damping', None)
    if damping is None or not layer.uses_coords:
        return weight
    waves, constants = damping.repeat(1 + coords.spec.cosine), damping.new_ones(coords.spec.constants)
    before = damping.new_ones(weight.shape[1] - len(waves) - len(constants))
    return weight * torch.cat([before, waves, constants])


def _block_of(block, w, noise_mode):
    """(BlockForm, {name: tensor}) of a block of either generator for the w of its layers, [1, w_dim] each."""
    spec, coords, tensors = block.spec, block.coords, {}
    noise = [module for module in block.modules() if hasattr(module, 'noise_strength') and module.noise_strength != 0]
    if noise and noise_mode != 'none':
        raise NoFunction('this network adds spatial noise to its layers: leave it out with --noise-mode=none')
    if coords is not None and not isinstance(coords, CoordinateFeatures) and not hasattr(coords, 'head'):
        raise NoFunction('the coordinate features of this network are no Fourier features')
    of_coords = getattr(coords, 'spec', FeatureSpec(cosine=coords is not None))
    count = 0
    if coords is not None:
        rows, shift = coords.rows(w[0])
        count = rows.shape[1]
        tensors |= {'rows': rows[0], 'shift': rows.new_zeros(count) if shift is None else shift[0]} if count else {}
        tensors |= {'constants': coords.const_embs} if of_coords.constants else {}
    layers, to_rgb = block.chain(w)
    for name, layer in [*((f'layer{i}', layer) for i, layer in enumerate(layers)), ('torgb', to_rgb)]:
        tensors |= {f'{name}.weight': _weight_of(layer, coords), f'{name}.bias': layer.bias[0]}
    form = BlockForm(
        spec.name, spec.grid, spec.in_channels, spec.channels, [layer.uses_coords for layer in layers],
        spec.upsamples, of_coords.raw, count, of_coords.cosine, of_coords.constants,
        layers[0].slope, layers[0].gain, layers[0].clamp, to_rgb.clamp, of_coords.footprint,
    )  # fmt: skip
    return form, tensors
