"""StyleGAN2's discriminator with heads that judge the features of a pretrained network (Projected GANs, arXiv 2111.01007; that they help
beside a discriminator of pixels: vision-aided GANs, arXiv 2112.09130).

The heads are small and learn with D; the features (training.pretrained) are frozen and no part of D. What is left out of the papers: random
projections between the maps, spectral normalization and hinge loss; the heads have R1 on the features instead. What is added: each head is
given how much features differ within groups of images (Progressive GAN, section 3), without which fakes become alike.

Legend: N images, C channels of a feature map, R its rows and columns.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from training import networks
from training.layers import Conv2dLayer, FullyConnectedLayer, MinibatchStdLayer
from training.pretrained import CHANNELS

HEAD_CHANNELS = 64
DEVIATIONS = 8  # channels of a head that hold the deviation over a group of images, each of an eighth of the features


class FeatureHead(nn.Module):
    """A feature map [N, C, H, W] to a logit [N, 1]: the mean over patches, and with labels and looks its projections onto these, embedded.

    look_dim: numbers of a look (training.instances), which begins as no matter, 0 for none
    dtype: what the convolutions before the last compute in
    """

    def __init__(self, in_channels, cmap_dim, group_size, look_dim=0, dtype=torch.float32):
        super().__init__()
        self.dtype = dtype
        self.fromfeatures = Conv2dLayer(in_channels, HEAD_CHANNELS, 1, activation='lrelu')
        self.conv0 = Conv2dLayer(HEAD_CHANNELS, HEAD_CHANNELS, 3, activation='lrelu')
        self.mbstd = MinibatchStdLayer(group_size, DEVIATIONS)
        self.conv1 = Conv2dLayer(HEAD_CHANNELS + DEVIATIONS, HEAD_CHANNELS, 3, activation='lrelu')
        self.out = Conv2dLayer(HEAD_CHANNELS, 1, 1)
        self.embed = FullyConnectedLayer(cmap_dim, HEAD_CHANNELS) if cmap_dim else None
        self.embed_look = FullyConnectedLayer(look_dim, HEAD_CHANNELS, bias=False) if look_dim else None
        if look_dim:
            nn.init.zeros_(self.embed_look.weight)

    def forward(self, x, cmap, look=None):
        x = self.fromfeatures(x.to(self.dtype))                               # [N, 64, H, W]
        if min(x.shape[2:]) >= 8:
            x = F.avg_pool2d(x, 2)                                            # [N, 64, H/2, W/2]
        x = self.conv1(self.mbstd(self.conv0(x).float()).to(self.dtype)).float()
        logits, x = self.out(x).mean((2, 3)), x.mean((2, 3))                  # [N, 1], [N, 64]
        if self.embed is not None:
            logits = logits + (x * self.embed(cmap)).sum(1, keepdim=True) / math.sqrt(HEAD_CHANNELS)
        if self.embed_look is not None and look is not None:
            logits = logits + (x * self.embed_look(look)).sum(1, keepdim=True) / math.sqrt(HEAD_CHANNELS)
        return logits


class Discriminator(networks.Discriminator):
    """`networks.Discriminator` and a head for each map of `features`, the name of a network of training.pretrained.

    forward judges pixels as before; judge_features judges what the network makes of them, in bfloat16 where the blocks of D compute in it.
    """

    def __init__(self, *args, features, look_dim=0, **kwargs):
        super().__init__(*args, **kwargs)
        self.init_kwargs |= {'features': features, **({'look_dim': look_dim} if look_dim else {})}
        cmap_dim = self.mapping.w_dim if self.c_dim else 0
        group_size = self.b4.mbstd.group_size if self.b4.mbstd else 1
        half = any(getattr(self, f'b{res}').dtype == torch.bfloat16 for res in self.block_resolutions)
        dtype = torch.bfloat16 if half else torch.float32
        self.heads = nn.ModuleList(FeatureHead(channels, cmap_dim, group_size, look_dim, dtype) for channels in CHANNELS[features])

    def judge_features(self, maps: list[torch.Tensor], c, looks=None) -> torch.Tensor:
        """Feature maps, c [N, c_dim] or None, looks [N, look_dim] or None, which is zero: nothing known -> logits [N, heads]."""
        cmap = self.mapping(None, c) if self.c_dim else None
        return torch.cat([head(x, cmap, looks) for head, x in zip(self.heads, maps, strict=True)], dim=1)
