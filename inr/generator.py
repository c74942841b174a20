"""Generator B: StyleGAN2's mapping network and the INR decoder, with the contract of stylegan2-ada-pytorch's generators.

Sizes, layers and coordinate features follow from the resolution by one rule (`feature_rule`, `block_specs`); the authors' later public
implementation names them one by one up to 256, and agrees there. `from_inr_gan` rebuilds its generators.
"""

from dataclasses import replace

from inr import widening
from inr.ablations import plain_learning_rates
from inr.blocks import BlockOptions, BlockSpec, SynthesisBlock
from inr.fmm import Modulation, check_rank
from inr.fourier import FeatureSpec
from inr.grid import GENERATOR_B, extent_of
from inr.periodic import wrapping_axes
from inr.refinement import UPSAMPLINGS
from inr.synthesis import MAX_RESOLUTION, BaseGenerator, SynthesisNetwork, block_dtypes, check_options, check_resolution
from training.networks import MappingNetwork

BLOCKS = tuple(2**k for k in range(2, 11))  # resolutions that name blocks
INPUT_RESOLUTION = 32


def feature_rule(resolution):
    """Coordinate features of the grid of a resolution, public implementation up to 256, beyond it without per-cell constants.

    At 1024, 64 constants a cell would be 67 M numbers.
    """
    if resolution <= 64:
        return FeatureSpec(log=64, diagonal=True, constants=128)
    return FeatureSpec(log=32, random=32, constants=64 if resolution <= 256 else 0)


def block_specs(resolution, input_resolution, channels, extra_layers, input_features, block_features):
    """Blocks of a generator, coarse to fine.

    resolution: trained resolution, a power of two; input_resolution: that of the input grid, on which smaller blocks run too
    channels: function of a block's resolution; extra_layers: {resolution: layers beyond StyleGAN2's two (one in the first block)}
    input_features: FeatureSpec of the input; block_features: function of the resolution of an upsampling block
    """
    specs, below = [], 0
    for name in BLOCKS[: BLOCKS.index(resolution) + 1]:
        upsamples = name > input_resolution
        features = input_features if not specs else block_features(name) if upsamples else None
        layers = (1 if not specs else 2) + extra_layers.get(name, 0)
        specs.append(BlockSpec(name, max(name, input_resolution), below, channels(name), layers, features, upsamples))
        below = channels(name)
    return specs


def build_synthesis(
    w_dim, img_resolution, img_channels, channel_base=32768, channel_max=512, num_fp16_res=0, conv_clamp=None, fp16_channels_last=False,
    half_dtype='float16', fmm_rank=10, squash='demod', equalized=True, fmm_spread=1.0, upsampling='nearest', instance_norm=False,
    noise=False, coord_skips=False, input_resolution=None, extra_layers=None, input_features=None, features=None, middles=False,
    periodic='none', img_size=None,
):  # fmt: skip
    """SynthesisNetwork from the options a host or a preset gives.

    channel_base, channel_max: a block of resolution R has min(channel_base / R, channel_max) channels
    num_fp16_res: blocks, counted from the finest, that compute in half precision; half_dtype: 'float16' or 'bfloat16'
    conv_clamp: limit on activations, or None; fp16_channels_last: accepted for hosts' sake, 1x1 layers have no use for it
    fmm_rank: rank of FMM; None for StyleGAN2's modulation and demodulation. squash, equalized, fmm_spread: see fmm.Modulation
    upsampling: how a grid reads the one below, see refinement.plan ('bilinear' is the public implementation's)
    instance_norm: see blocks; pixels then depend on each other
    noise: StyleGAN2's spatial noise in every layer; coord_skips: see blocks.BlockOptions
    input_resolution: grid of the input, default min(32, img_resolution); 'full' for img_resolution, so that all blocks run there (CIPS)
    extra_layers: {resolution: number}, default one at 128 and one at 256 (keys may be strings, as JSON has them)
    features: FeatureSpec fields in place of the rule's, for every grid, or {resolution: fields} for some upsampling blocks ({}: none)
    input_features: the same for the input alone
    middles: see grid.Convention; periodic: 'none', 'x', 'y' or 'xy', the axes along which a picture goes on at its beginning
    img_size: see BaseGenerator
    Raises ValueError for a resolution or an option outside its range.
    """
    check_resolution(img_resolution)
    wraps = wrapping_axes(periodic, upsampling, noise)
    if upsampling not in UPSAMPLINGS:
        raise ValueError(f"unknown upsampling '{upsampling}'; choose one of {', '.join(UPSAMPLINGS)}")
    input_resolution = {None: min(INPUT_RESOLUTION, img_resolution), 'full': img_resolution}.get(input_resolution, input_resolution)
    extra_layers = {128: 1, 256: 1} if extra_layers is None else {int(res): n for res, n in extra_layers.items()}
    if input_resolution not in BLOCKS or input_resolution > img_resolution:
        raise ValueError(f'input resolution {input_resolution} is not a power of two from 4 to {img_resolution}')
    if features and not all(str(key).isdigit() for key in features):
        input_features = features if input_features is None else input_features
        features = dict.fromkeys(BLOCKS, features)
    given = {int(res): spec for res, spec in (features or {}).items()}
    if unknown := [res for res in [*given, *extra_layers] if res not in BLOCKS]:
        raise ValueError(f'there is no block of resolution {unknown[0]}; blocks are powers of two from 4 to {MAX_RESOLUTION}')
    of_input = FeatureSpec.of(input_features, feature_rule(input_resolution))
    if of_input is None:
        raise ValueError('the input needs coordinate features; input_features has none')
    specs = block_specs(
        img_resolution, input_resolution, lambda res: max(min(channel_base // res, channel_max), 1), extra_layers,
        of_input, lambda res: FeatureSpec.of(given.get(res), feature_rule(res)),
    )  # fmt: skip
    modulation = Modulation(fmm_rank, squash, equalized, fmm_spread)
    extent = extent_of(img_resolution, img_size)
    options = BlockOptions(upsampling, instance_norm, noise, coord_skips, conv_clamp, wraps, extent)
    dtypes = block_dtypes([spec.name for spec in specs], num_fp16_res, half_dtype)
    blocks = [SynthesisBlock(spec, w_dim, img_channels, modulation, options, dtype) for spec, dtype in zip(specs, dtypes, strict=True)]
    check_rank(fmm_rank, max(layer.weight.shape[1] for block in blocks for layer in block.layers))
    convention = replace(GENERATOR_B, middles=middles, periodic=wraps, extent=extent)
    return SynthesisNetwork(w_dim, img_resolution, img_channels, blocks, convention, upsampling, pointwise=not instance_norm)


class Generator(BaseGenerator):
    """INR-GAN's generator B.

    z_dim, c_dim, w_dim: sizes of latent, label (0 for none) and w
    img_resolution: training resolution, a power of two from 16 to 1024; img_channels: any
    mapping_kwargs: for the host's MappingNetwork
    synthesis_kwargs: see build_synthesis. Two more concern all of G: equalized_lr (True; False: see ablations.py) and pixel_norm
        (True; False: the mapping network takes z as it is, where the host's can)
    """

    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs=None, synthesis_kwargs=None, img_size=None):
        super().__init__(z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs, synthesis_kwargs, img_size)
        mapping_kwargs, synthesis_kwargs = dict(mapping_kwargs or {}), dict(synthesis_kwargs or {})
        equalized_lr, pixel_norm = synthesis_kwargs.pop('equalized_lr', True), synthesis_kwargs.pop('pixel_norm', True)
        check_options(synthesis_kwargs, build_synthesis)
        if img_size:
            synthesis_kwargs['img_size'] = img_size
        self.synthesis = build_synthesis(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, num_ws=self.num_ws, **mapping_kwargs)
        if not equalized_lr:
            plain_learning_rates(self)
        if not pixel_norm and not hasattr(self.mapping, 'pixel_norm'):
            raise ValueError('the MappingNetwork here always normalizes z: it has no attribute pixel_norm to turn that off')
        if not pixel_norm:
            self.mapping.pixel_norm = False

    def place(self, key, shapes):
        """Where the tensor `key` of a generator with fewer channels or random rows stands in this one's; see widening.place."""
        return widening.place(self, key, shapes)


def from_inr_gan(config, state):
    """Generator of the public INR-GAN implementation: same weights, same images.

    config: its configuration, see public.constructor_arguments; state: {public name: tensor}
    Raises ValueError for a configuration that lacks something or has no counterpart here, or if a stored logarithmic basis is not the
    rule's, RuntimeError if weights are missing, left over or of another shape.
    """
    from inr import public  # not needed to train or draw

    generator = Generator(**public.constructor_arguments(config))
    public.load_state(generator, state)
    return generator
