"""The networks of StyleGAN2: mapping, synthesis, discriminator (arXiv 1912.04958; the adaptive-augmentation release's layout).

Constructor arguments, state-dict keys and numbers are those of stylegan2-ada-pytorch, so its weights load with
strict=True. Their layers are in layers.py. Letters in shape trails: N images, C channels, R resolution, L number of ws.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib.util import UserError
from torch_utils.ops import upfirdn2d
from training.data import shapes
from training.layers import DEFAULT_FILTER, Conv2dLayer, FullyConnectedLayer, MinibatchStdLayer, SynthesisLayer, ToRGBLayer, shape_of

HALF_DTYPES = {'float16': torch.float16, 'bfloat16': torch.bfloat16}


def normalize_2nd_moment(x, eps=1e-8):
    """Scale each row of [N, features] to mean square 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


def channels_per_resolution(img_resolution, channel_base, channel_max):
    """{R: min(channel_base // R, channel_max)} for R = 4, 8, ..., img_resolution; UserError for a size or a base that has none."""
    allowed = [2**i for i in range(3, 11)]
    if img_resolution not in allowed:
        raise UserError(f'resolution {img_resolution}: StyleGAN2 networks need one of {", ".join(map(str, allowed))}; resize the data set')
    if channel_base < img_resolution or channel_max < 1:
        raise UserError(f'channel_base={channel_base}, channel_max={channel_max}: no channels left; '
                        f'resolution {img_resolution} needs a channel_base of at least {img_resolution} and a channel_max of at least 1')
    return {res: min(int(channel_base) // res, int(channel_max)) for res in [4] + allowed if res <= img_resolution}


def extent_of(img_resolution, img_size):
    """Sides (x, y) in units of R pixels, of images of (width, height) or, for None, of squares. Raises UserError for another R."""
    if img_size is None:
        return 1, 1
    if shapes.resolution_of(*img_size) != img_resolution:
        raise UserError(f'img_size={list(img_size)}: images of resolution {img_resolution} have other sides, see training/data/shapes.py')
    return tuple(side / img_resolution for side in img_size)


def half_precision_from(img_resolution, num_fp16_res):
    """Lowest resolution that runs in half precision when the `num_fp16_res` highest do; never below 8."""
    return max(img_resolution * 2 >> num_fp16_res, 8)


class MappingNetwork(nn.Module):
    """z and c to w (StyleGAN, figure 1b), with truncation.

    z_dim, c_dim:   sizes of latent and label, either may be 0
    w_dim:          size of w
    num_ws:         copies of w to return, one per layer of the synthesis; None returns w itself
    embed_features: size of the embedded label, None is w_dim
    layer_features: size of the hidden layers, None is w_dim
    lr_multiplier:  learning rate of the layers relative to the rest
    w_avg_beta:     decay of the running mean of w that truncation pulls towards; None keeps none
    The attribute pixel_norm, True, can be set to False: then z and the embedded label are not scaled to mean square 1 first.
    """

    pixel_norm = True

    def __init__(self, z_dim, c_dim, w_dim, num_ws, num_layers=8, embed_features=None, layer_features=None,
                 activation='lrelu', lr_multiplier=0.01, w_avg_beta=0.995):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.w_avg_beta = num_layers, w_avg_beta
        embed_features = 0 if c_dim == 0 else w_dim if embed_features is None else embed_features
        layer_features = w_dim if layer_features is None else layer_features
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, embed_features)
        for i in range(num_layers):
            layer = FullyConnectedLayer(layer_features if i else z_dim + embed_features, layer_features if i < num_layers - 1 else w_dim,
                                        activation=activation, lr_multiplier=lr_multiplier)
            setattr(self, f'fc{i}', layer)
        if num_ws is not None and w_avg_beta is not None:
            self.register_buffer('w_avg', torch.zeros(w_dim))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, skip_w_avg_update=False):
        """z [N, z_dim] (None if z_dim is 0), c [N, c_dim] (None if c_dim is 0) -> ws [N, num_ws, w_dim], or w [N, w_dim].

        truncation_psi:    1 leaves w as it is, 0 returns its running mean
        truncation_cutoff: how many of the first ws are truncated, None for all
        skip_w_avg_update: leave the running mean alone in training mode (it never moves in eval mode)
        """
        inputs = []
        for name, value, size in (('z', z, self.z_dim), ('c', c, self.c_dim)):
            if size > 0:
                if value is None or value.ndim != 2 or value.shape[1] != size:
                    given = None if value is None else list(value.shape)
                    raise ValueError(f'the mapping network needs {name} of shape [N, {size}], it was given {given}')
                value = value.float()
                value = value if name == 'z' else self.embed(value)
                inputs.append(normalize_2nd_moment(value) if self.pixel_norm else value)
        if len({len(part) for part in inputs}) > 1:
            raise ValueError(f'the mapping network was given {len(z)} z and {len(c)} c: a label for each')
        w = torch.cat(inputs, dim=1)  # [N, z_dim + embed_features]
        for i in range(self.num_layers):
            w = getattr(self, f'fc{i}')(w)

        if self.training and not skip_w_avg_update and hasattr(self, 'w_avg'):
            self.w_avg.copy_(w.detach().mean(dim=0).lerp(self.w_avg.to(w.dtype), self.w_avg_beta))
        ws = w if self.num_ws is None else w[:, None].repeat(1, self.num_ws, 1)  # [N, L, w_dim], memory of its own
        if truncation_psi != 1:
            truncated = self.w_avg.to(ws.dtype).lerp(ws, truncation_psi)
            if self.num_ws is None or truncation_cutoff is None:
                return truncated
            ws[:, :truncation_cutoff] = truncated[:, :truncation_cutoff]
        return ws


class Block(nn.Module):
    """What the blocks of both networks share: their layout and the precision they compute in.

    architecture: 'skip' (every block has its image), 'resnet' (residual blocks) or 'orig' (neither); StyleGAN2, figure 7
    use_fp16:     compute in half_dtype ('float16' or 'bfloat16') instead of float32
    fp16_channels_last: and in that memory format
    """

    def __init__(self, resolution, architecture, resample_filter, use_fp16, fp16_channels_last, half_dtype):
        super().__init__()
        if architecture not in ('orig', 'skip', 'resnet'):
            raise UserError(f'architecture={architecture}: use orig, skip or resnet')
        if half_dtype not in HALF_DTYPES:
            raise UserError(f'half_dtype={half_dtype}: use {" or ".join(HALF_DTYPES)}')
        self.resolution, self.architecture = resolution, architecture
        self.dtype = HALF_DTYPES[half_dtype] if use_fp16 else torch.float32
        self.channels_last = use_fp16 and fp16_channels_last
        self.register_buffer('resample_filter', upfirdn2d.setup_filter(resample_filter))

    def cast(self, x, force_fp32):
        """x in the block's precision, or float32, and in its memory format."""
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.to(dtype=torch.float32 if force_fp32 else self.dtype, memory_format=memory_format)


class SynthesisBlock(Block):
    """All layers of one resolution; the first block (in_channels=0) starts from a learned constant.

    extent: see SynthesisLayer
    layer_kwargs: further arguments of SynthesisLayer
    """

    def __init__(self, in_channels, out_channels, w_dim, resolution, img_channels, is_last, architecture='skip',
                 resample_filter=DEFAULT_FILTER, conv_clamp=None, use_fp16=False, fp16_channels_last=False, half_dtype='float16',
                 extent=(1, 1), **layer_kwargs):
        super().__init__(resolution, architecture, resample_filter, use_fp16, fp16_channels_last, half_dtype)
        self.in_channels = in_channels
        self.num_conv = 1 if in_channels == 0 else 2
        self.num_torgb = int(is_last or architecture == 'skip')
        layer_kwargs = dict(layer_kwargs, w_dim=w_dim, resolution=resolution, extent=extent, conv_clamp=conv_clamp)
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, *shape_of(resolution, extent)))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, up=2, resample_filter=resample_filter, **layer_kwargs)
        self.conv1 = SynthesisLayer(out_channels, out_channels, **layer_kwargs)
        if self.num_torgb:
            self.torgb = ToRGBLayer(out_channels, img_channels, w_dim, conv_clamp=conv_clamp)
        if in_channels != 0 and architecture == 'resnet':
            self.skip = Conv2dLayer(in_channels, out_channels, 1, bias=False, up=2, resample_filter=resample_filter)
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, x, img, ws, noise_mode='random', force_fp32=False):
        """x [N, C_in, H/2, W/2] and img [N, img_channels, H/2, W/2] (None at the start), ws [N, num_conv + num_torgb, w_dim]
        -> x [N, C_out, H, W], img [N, img_channels, H, W] in float32, or None where no block has drawn yet."""
        ws = iter(ws.unbind(dim=1))
        if self.in_channels == 0:
            w = next(ws)
            x = self.conv1(self.cast(self.const.expand(len(w), -1, -1, -1), force_fp32), w, noise_mode)
        else:
            x = self.cast(x, force_fp32)
            gain = math.sqrt(0.5) if self.architecture == 'resnet' else 1
            shortcut = self.skip(x, gain=gain) if self.architecture == 'resnet' else None
            x = self.conv0(x, next(ws), noise_mode)
            x = self.conv1(x, next(ws), noise_mode, gain=gain)
            x = x if shortcut is None else shortcut + x
        if img is not None:
            img = upfirdn2d.upsample2d(img, self.resample_filter)
        if self.num_torgb:
            y = self.torgb(x, next(ws)).to(dtype=torch.float32, memory_format=torch.contiguous_format)
            img = y if img is None else img + y
        return x, img


class SynthesisNetwork(nn.Module):
    """ws to images.

    channel_base, channel_max: a block at resolution R has min(channel_base // R, channel_max) channels
    num_fp16_res: so many of the highest resolutions compute in half precision
    img_size: (width, height) of the images where these are no squares of img_resolution pixels, which then is their R (data.shapes)
    block_kwargs: further arguments of SynthesisBlock and SynthesisLayer
    """

    def __init__(self, w_dim, img_resolution, img_channels, channel_base=32768, channel_max=512, num_fp16_res=0, img_size=None,
                 **block_kwargs):
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        extent = extent_of(img_resolution, img_size)
        channels = channels_per_resolution(img_resolution, channel_base, channel_max)
        self.block_resolutions = list(channels)
        for res in self.block_resolutions:
            block = SynthesisBlock(channels.get(res // 2, 0), channels[res], w_dim, res, img_channels, is_last=res == img_resolution,
                                   extent=extent, use_fp16=res >= half_precision_from(img_resolution, num_fp16_res), **block_kwargs)
            setattr(self, f'b{res}', block)
        self.num_ws = sum(getattr(self, f'b{res}').num_conv for res in self.block_resolutions) + block.num_torgb

    def forward(self, ws, noise_mode='random', force_fp32=False, resolution=None):
        """ws [N, num_ws, w_dim] -> images [N, img_channels, H, W], float32, about [-1, 1].

        noise_mode: 'random' draws new noise, 'const' uses the stored maps, 'none' adds none
        force_fp32: ignore the blocks' half precision
        resolution: R; below img_resolution the image of the block of that resolution, its blocks above are not computed ('skip' only)
        A block's to-RGB and the next block's first convolution share a w.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f'the synthesis network needs ws of shape [N, {self.num_ws}, {self.w_dim}], it was given {list(ws.shape)}')
        if noise_mode not in ('random', 'const', 'none'):
            raise ValueError(f"noise_mode={noise_mode!r}: use 'random', 'const' or 'none'")
        if resolution is not None and not (resolution in self.block_resolutions and getattr(self, f'b{resolution}').num_torgb):
            raise ValueError(f'resolution={resolution}: no block of this network draws an image of that size')
        ws = ws.float()
        x = img = None
        first = 0
        for res in self.block_resolutions:
            block = getattr(self, f'b{res}')
            x, img = block(x, img, ws[:, first : first + block.num_conv + block.num_torgb], noise_mode, force_fp32)
            first += block.num_conv
            if res == resolution:
                break
        return img


class Generator(nn.Module):
    """z and c to images: mapping and synthesis.

    mapping_kwargs:   further arguments of MappingNetwork
    synthesis_kwargs: further arguments of SynthesisNetwork and its blocks
    img_size:         as in SynthesisNetwork; the attribute is (width, height) of any network's images
    """

    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs=None, synthesis_kwargs=None, img_size=None):
        super().__init__()
        mapping_kwargs, synthesis_kwargs = mapping_kwargs or {}, synthesis_kwargs or {}
        self.init_kwargs = copy.deepcopy(dict(
            z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, img_resolution=img_resolution, img_channels=img_channels,
            mapping_kwargs=mapping_kwargs, synthesis_kwargs=synthesis_kwargs, **({'img_size': list(img_size)} if img_size else {})))
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels, self.img_size = img_resolution, img_channels, tuple(img_size or [img_resolution] * 2)
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, img_size=img_size, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **mapping_kwargs)

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, **synthesis_kwargs):
        """z [N, z_dim], c [N, c_dim] or None -> images [N, img_channels, H, W]. See MappingNetwork and SynthesisNetwork."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, **synthesis_kwargs)


class DiscriminatorBlock(Block):
    """All layers of one resolution, halving it; the first block (in_channels=0) reads the image.

    first_layer_idx: index of the block's first layer among all layers of the discriminator
    freeze_layers:   layers with a lower index do not train
    entry:           whether smaller images can enter here while a run grows, through a from-RGB layer of their own
    """

    def __init__(self, in_channels, tmp_channels, out_channels, resolution, img_channels, first_layer_idx, architecture='resnet',
                 activation='lrelu', resample_filter=DEFAULT_FILTER, conv_clamp=None, use_fp16=False, fp16_channels_last=False,
                 freeze_layers=0, half_dtype='float16', entry=False):
        super().__init__(resolution, architecture, resample_filter, use_fp16, fp16_channels_last, half_dtype)
        self.in_channels = in_channels
        if entry:
            self.entry = Conv2dLayer(img_channels, tmp_channels, 1, activation=activation, conv_clamp=conv_clamp)
        layers = [('conv0', tmp_channels, tmp_channels, 3, dict(activation=activation, conv_clamp=conv_clamp)),
                  ('conv1', tmp_channels, out_channels, 3, dict(activation=activation, conv_clamp=conv_clamp, down=2))]
        if in_channels == 0 or architecture == 'skip':
            layers.insert(0, ('fromrgb', img_channels, tmp_channels, 1, dict(activation=activation, conv_clamp=conv_clamp)))
        if architecture == 'resnet':
            layers.append(('skip', tmp_channels, out_channels, 1, dict(bias=False, down=2)))
        for idx, (name, c_in, c_out, kernel_size, kwargs) in enumerate(layers, first_layer_idx):
            setattr(self, name, Conv2dLayer(c_in, c_out, kernel_size, resample_filter=resample_filter, trainable=idx >= freeze_layers,
                                            **kwargs))
        self.num_layers = len(layers)
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, x, img, force_fp32=False):
        """x [N, in_channels, H, W] (None in the first block), img [N, img_channels, H, W] or None
        -> x [N, out_channels, H/2, W/2], img at half the size where the next block reads it, else None."""
        x = None if x is None else self.cast(x, force_fp32)
        if self.in_channels == 0 or self.architecture == 'skip':
            img = self.cast(img, force_fp32)
            y = self.fromrgb(img)
            x = y if x is None else x + y
            img = upfirdn2d.downsample2d(img, self.resample_filter) if self.architecture == 'skip' else None
        if self.architecture == 'resnet':
            gain = math.sqrt(0.5)
            return self.skip(x, gain=gain) + self.conv1(self.conv0(x), gain=gain), img
        return self.conv1(self.conv0(x)), img

    def enter(self, img, force_fp32=False):
        """What an image [N, img_channels, H, W] is as the input of this block, [N, C, H, W], where smaller images can enter."""
        return self.entry(self.cast(img, force_fp32))


class DiscriminatorEpilogue(nn.Module):
    """The lowest features, 4x4 of a square, to a logit; with labels the projection of the features onto the embedded label (cGANs, arXiv
    1802.05637). extent: see SynthesisLayer"""

    def __init__(self, in_channels, cmap_dim, resolution, img_channels, architecture='resnet', mbstd_group_size=4, mbstd_num_channels=1,
                 activation='lrelu', conv_clamp=None, extent=(1, 1)):
        super().__init__()
        self.cmap_dim, self.architecture, self.channels_last = cmap_dim, architecture, False
        if architecture == 'skip':
            self.fromrgb = Conv2dLayer(img_channels, in_channels, 1, activation=activation)
        self.mbstd = MinibatchStdLayer(mbstd_group_size, mbstd_num_channels) if mbstd_num_channels > 0 else None
        self.conv = Conv2dLayer(in_channels + mbstd_num_channels, in_channels, 3, activation=activation, conv_clamp=conv_clamp)
        self.fc = FullyConnectedLayer(in_channels * math.prod(shape_of(resolution, extent)), in_channels, activation=activation)
        self.out = FullyConnectedLayer(in_channels, 1 if cmap_dim == 0 else cmap_dim)

    def forward(self, x, img, cmap):
        """x [N, C, h, w], img [N, img_channels, h, w] for 'skip', cmap [N, cmap_dim] if conditional -> logits [N, 1]; all in float32."""
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        x = x.to(dtype=torch.float32, memory_format=memory_format)
        if self.architecture == 'skip':
            x = x + self.fromrgb(img.to(dtype=torch.float32, memory_format=memory_format))
        x = x if self.mbstd is None else self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        if self.cmap_dim > 0:
            x = (x * cmap).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        return x


class Discriminator(nn.Module):
    """Images (and labels) to logits.

    architecture:  'resnet', 'skip' or 'orig'
    channel_base, channel_max, num_fp16_res: as in SynthesisNetwork
    conv_clamp:    bound on the output of every convolution, None for none
    cmap_dim:      size of the mapped label, None is the number of channels at 4x4
    block_kwargs:  further arguments of DiscriminatorBlock
    mapping_kwargs: of the label's MappingNetwork; epilogue_kwargs: of DiscriminatorEpilogue
    entries:       smaller resolutions whose images can be judged too, while a run grows ('resnet' only)
    img_size:      as in Generator
    """

    def __init__(self, c_dim, img_resolution, img_channels, architecture='resnet', channel_base=32768, channel_max=512, num_fp16_res=0,
                 conv_clamp=None, cmap_dim=None, block_kwargs=None, mapping_kwargs=None, epilogue_kwargs=None, entries=(), img_size=None):
        super().__init__()
        block_kwargs, mapping_kwargs, epilogue_kwargs = block_kwargs or {}, mapping_kwargs or {}, epilogue_kwargs or {}
        self.init_kwargs = copy.deepcopy(dict(
            c_dim=c_dim, img_resolution=img_resolution, img_channels=img_channels, architecture=architecture, channel_base=channel_base,
            channel_max=channel_max, num_fp16_res=num_fp16_res, conv_clamp=conv_clamp, cmap_dim=cmap_dim, block_kwargs=block_kwargs,
            mapping_kwargs=mapping_kwargs, epilogue_kwargs=epilogue_kwargs, **({'entries': list(entries)} if entries else {}),
            **({'img_size': list(img_size)} if img_size else {})))
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.img_size, self.extent = tuple(img_size or [img_resolution] * 2), extent_of(img_resolution, img_size)
        channels = channels_per_resolution(img_resolution, channel_base, channel_max)
        self.block_resolutions = list(channels)[:0:-1]  # from the image down to 8
        if entries and (architecture != 'resnet' or not set(entries) <= set(self.block_resolutions[1:])):
            raise UserError(f"entries={list(entries)}: a 'resnet' discriminator of {img_resolution} takes powers of two from 8 "
                            f'to {img_resolution // 2}')
        cmap_dim = 0 if c_dim == 0 else channels[4] if cmap_dim is None else cmap_dim
        shared = dict(img_channels=img_channels, architecture=architecture, conv_clamp=conv_clamp)
        layers = 0
        for res in self.block_resolutions:
            block = DiscriminatorBlock(channels[res] if res < img_resolution else 0, channels[res], channels[res // 2], res,
                                       first_layer_idx=layers, use_fp16=res >= half_precision_from(img_resolution, num_fp16_res),
                                       entry=res in entries, **shared, **block_kwargs)
            setattr(self, f'b{res}', block)
            layers += block.num_layers
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, cmap_dim, num_ws=None, w_avg_beta=None, **mapping_kwargs)
        self.b4 = DiscriminatorEpilogue(channels[4], cmap_dim, 4, extent=self.extent, **shared, **epilogue_kwargs)

    def use_channels_last(self):
        """From now on all blocks compute with channels last, in any precision; their weights are stored so too. Nothing else changes."""
        for block in (*(getattr(self, f'b{res}') for res in self.block_resolutions), self.b4):
            block.channels_last = True
        return self.to(memory_format=torch.channels_last)

    def forward(self, img, c, force_fp32=False, fade=1.0):
        """img [N, img_channels, H, W] in [-1, 1], c [N, c_dim] or None -> logits [N, 1].

        H, W: of the level img_resolution, or of one of `entries`
        fade: share of what the block of R makes of the image in the input of the block below, the rest is the image at R/2 as it enters
              there; below 1 while the block of R is new (Karras et al. 2018, figure 2)
        """
        blocks = [getattr(self, f'b{res}') for res in self.block_resolutions if shape_of(res, self.extent)[1] <= img.shape[-1]]
        enters = blocks and img.ndim == 4 and (blocks[0].in_channels == 0 or hasattr(blocks[0], 'entry'))
        if not enters or img.shape[1:] != (self.img_channels, *shape_of(blocks[0].resolution, self.extent)):
            raise ValueError(f'the discriminator needs images of shape [N, {self.img_channels}, {self.img_size[1]}, '
                             f'{self.img_size[0]}], it was given {list(img.shape)}')
        halved = F.avg_pool2d(img, 2) if fade < 1 else None
        x = blocks[0].enter(img, force_fp32) if hasattr(blocks[0], 'entry') else None
        for i, block in enumerate(blocks):
            if i == 1 and halved is not None:
                x = block.enter(halved, force_fp32).lerp(block.cast(x, force_fp32), fade)
            x, img = block(x, img, force_fp32)
        return self.b4(x, img, self.mapping(None, c) if self.c_dim > 0 else None)
