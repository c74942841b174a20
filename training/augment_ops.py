"""The single transforms of augment.py as functions of images and of one parameter for each image (Karras et al. 2020, appendix B).

All are differentiable in the images to any order, and none in their parameters. Images are [N, C, H, W] in float32 or float64 with square
pixels; parameters are [N] or [N, k], on any device. Letters: N images, C channels, R resolution.
"""

import math

import torch
import torch.nn.functional as F

from torch_utils.ops.grid_sample import grid_sample

# Low-pass filters of orthogonal wavelets (Daubechies 1992, least asymmetric; tables as in PyWavelets), scaled to the sum sqrt(2).
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466, 0.787641141030194,
        0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148)
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # expected share of an image's power in each band of `amplify`
AT_ONCE = 2 ** 25                               # fine pixels that `warp` holds at a time, 128 MiB in float32
CUTOUT = 0.5                                    # side of the square cut out, in the image's shorter one


def reflected(position, size):
    """Whole numbers mirrored, as often as it takes, into 0 .. size - 1; the outermost pixels are not repeated."""
    last = size - 1
    return last - (position % (2 * last) - last).abs()


# ---- Pixels moved whole


def blit(images, flip, turns, shift):
    """Flip left to right, then quarter turns against the clock, then a shift that mirrors what it lets in. Pixels stay what they are.

    flip: [N] bool;  turns: [N] whole numbers, even ones where the images are no squares;  shift: [N, 2] pixels to the right and down
    """
    N, C, H, W = images.shape
    flip, turns, shift = (value.to(images.device)[:, None, None] for value in (flip, turns.long(), shift.long()))
    columns, rows = torch.arange(W, device=images.device)[None, None, :], torch.arange(H, device=images.device)[None, :, None]
    x, y = reflected(columns - shift[..., 0], W), reflected(rows - shift[..., 1], H)
    x, y = torch.broadcast_tensors(2 * x - (W - 1), 2 * y - (H - 1))            # [N, H, W], half pixels from the centre
    quarter = [(turns % 4 == i).long() for i in range(4)]
    cos, sin = quarter[0] - quarter[2], quarter[1] - quarter[3]
    x, y = cos * x - sin * y, sin * x + cos * y
    x = torch.where(flip, -x, x)
    source = ((y + H - 1) // 2 * W + (x + W - 1) // 2).flatten(1)                # [N, H W]
    return images.flatten(2).gather(2, source[:, None].expand(N, C, H * W)).view_as(images)


# ---- Geometry


def warp(images, inverse):
    """Move what is at position inverse @ (x, y, 1) of an image to (x, y), mirrored beyond the borders.

    inverse: [N, 2, 3], positions from the centre in units of the shorter side: (-0.5, -0.5) is the upper left corner of a square
    Read bilinearly at twice the resolution. The wavelet that takes it there and back is orthogonal, so a shift by whole pixels blurs
    nothing; it is not quite symmetric, and its centre of mass tells where a fine pixel lies.
    """
    N, C, H, W = images.shape
    R = min(H, W)
    count = max(AT_ONCE // (C * 4 * H * 4 * W), 1)
    if N > count:
        return torch.cat([warp(*part) for part in zip(images.split(count), inverse.split(count), strict=True)])
    inverse = inverse.to('cpu', torch.float64, copy=True)
    late = (sum(i * tap for i, tap in enumerate(SYM6)) / sum(SYM6) - (len(SYM6) - 1) / 2) / (2 * R)
    inverse[:, :, 2] += late - inverse[:, :, :2].sum(2) * late
    middle = torch.tensor([W / R, H / R], dtype=torch.float64) / 2
    size = [2 * side + len(SYM6) - 2 for side in (W, H)]                         # fine pixels that `halving` takes
    half_x, half_y = (pixels / (4 * R) for pixels in size)
    corners = torch.tensor([[x, y, 1] for x in (-half_x, half_x) for y in (-half_y, half_y)], dtype=torch.float64)
    reached = (inverse @ corners.T + middle[:, None]) * 2 * R - 0.5              # [N, 2, 4] numbers of fine pixels
    low, high = reached.amin([0, 2]).floor().long(), reached.amax([0, 2]).ceil().long()
    wide = high - low + 1
    across, along = (doubling(*span).to(images) for span in zip((W, H), low.tolist(), wide.tolist(), strict=True))
    fine = along @ images @ across.mT                                            # [N, C, wide y, wide x]
    theta = inverse * torch.tensor([half_x, half_y, 1], dtype=torch.float64)     # now both sides in the units of affine_grid
    theta[:, :, 2] += middle - low.double() / (2 * R)
    theta *= 4 * R / wide.double()[:, None]
    theta[:, :, 2] -= 1
    grid = F.affine_grid(theta.to(images), [N, C, *size[::-1]], align_corners=False)
    return halving(H).to(images) @ grid_sample(fine, grid) @ halving(W).to(images).mT


def doubling(R, first, count):
    """[count, R] float64: what a column of R pixels is multiplied with to get its fine pixels first, first + 1, ...

    A pixel i becomes the fine pixels 2 i and 2 i + 1 by the filter SYM6; beyond the borders the pixels are mirrored.
    """
    taps = math.sqrt(2) * torch.tensor(SYM6, dtype=torch.float64).flip(0)
    read = torch.arange(first, first + count)[:, None] + torch.arange(len(taps)) - len(taps) // 2
    weight = taps.expand(count, -1).masked_fill(read % 2 != 0, 0)                # between the pixels there are zeros
    source = reflected(read.div(2, rounding_mode='floor'), R)
    return weight.new_zeros(count, R).scatter_add_(1, source, weight)


def halving(R):
    """[R, 2 R + 10] float64: the way back from the fine pixels -5 to 2 R + 4."""
    taps = torch.tensor(SYM6, dtype=torch.float64) / math.sqrt(2)
    place = 2 * torch.arange(R)[:, None] + torch.arange(len(taps))
    return taps.new_zeros(R, 2 * R + len(taps) - 2).scatter_(1, place, taps.expand(R, -1))


# ---- Colour


def recolour(images, brightness, contrast, inverted, hue, saturation):
    """Add brightness, multiply by contrast, mirror the luma, turn the hue, multiply the saturation; alpha stays.

    brightness, contrast, saturation: [N];  inverted: [N] bool;  hue: [N] radians
    Luma is along (1, 1, 1); one channel has nothing but luma, four are red, green, blue and alpha.
    """
    dtype, device = images.dtype, images.device
    brightness, contrast, hue, saturation = (value.double() for value in (brightness, contrast, hue, saturation))
    luma = contrast * (1 - 2 * inverted.double())
    offset = (luma * brightness).to(device, dtype)[:, None, None]
    if images.shape[1] == 1:
        return torch.addcmul(offset[..., None], images, luma.to(device, dtype)[:, None, None, None])
    along = torch.full([3, 3], 1 / 3, dtype=torch.float64, device=hue.device)   # v v^T
    across = torch.eye(3, dtype=torch.float64, device=hue.device) - along
    turn = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64, device=hue.device) / math.sqrt(3)  # v x
    chroma = (contrast * saturation)[:, None, None] * (hue.cos()[:, None, None] * across + hue.sin()[:, None, None] * turn)
    matrix = (luma[:, None, None] * along + chroma).to(device, dtype)            # [N, 3, 3]
    rgb = torch.baddbmm(offset, matrix, images[:, :3].flatten(2)).unflatten(2, images.shape[2:])
    return rgb if images.shape[1] == 3 else torch.cat([rgb, images[:, 3:]], dim=1)


# ---- Filters


def band_filters():
    """[4, 43] float64: zero-phase filters of the octaves [0, pi/8], [pi/8, pi/4], [pi/4, pi/2], [pi/2, pi]; their sum is the identity."""
    taps = torch.tensor(SYM2, dtype=torch.float64)
    signs = torch.tensor([(-1.0) ** i for i in range(2 * len(SYM2) - 1)], dtype=torch.float64)
    low = _convolved(taps, taps.flip(0)) / 2                                     # H(z) H(1/z) / 2
    high = low * -signs                                                          # H(-z) H(-1/z) / 2; the centre has an odd number
    filters, below = [], torch.ones(1, dtype=torch.float64)                      # below: what has passed all low-pass filters so far
    for level in range(3):
        filters.append(_convolved(below, _spread(high, 2 ** level)))
        below = _convolved(below, _spread(low, 2 ** level))
    filters.append(below)
    longest = len(below)
    return torch.stack([F.pad(f, [(longest - len(f)) // 2] * 2) for f in reversed(filters)])


def _convolved(a, b):
    return F.conv1d(a[None, None], b.flip(0)[None, None], padding=len(b) - 1)[0, 0]


def _spread(f, step):
    """A filter with step - 1 zeros between its taps."""
    result = f.new_zeros((len(f) - 1) * step + 1)
    result[::step] = f
    return result


def amplify(images, gains):
    """Multiply the frequency bands of `band_filters`, along both axes. gains: [N, 4]. Borders are mirrored."""
    (H, W), bands = images.shape[2:], band_filters()

    def along(R):
        """[N, 1, R, R]: what columns of R pixels are multiplied with."""
        reach = bands.shape[1] // 2
        source = reflected(torch.arange(R)[:, None] + torch.arange(-reach, reach + 1), R)         # [R, taps]
        matrices = torch.zeros(4, R, R, dtype=torch.float64).scatter_add_(2, source.expand(4, -1, -1), bands[:, None].expand(-1, R, -1))
        return (gains.double() @ matrices.to(gains.device).flatten(1)).view(-1, 1, R, R).to(images.device, images.dtype)

    of_columns = along(H)
    return of_columns @ images @ (of_columns if W == H else along(W)).mT


def band_gains(amplified, strength):
    """Gains of the bands that leave an image of the expected spectrum (1/f) its power.

    amplified: [N, 4] bool, which bands to change;  strength: [N, 4] positive, by how much
    """
    gains = torch.ones_like(strength)
    power = torch.tensor(BAND_POWER, dtype=strength.dtype, device=strength.device)
    for band in range(4):
        one = torch.ones_like(strength)
        one[:, band] = torch.where(amplified[:, band], strength[:, band], one[:, band])
        gains = gains * one / (power * one.square()).sum(1, keepdim=True).sqrt()
    return gains


# ---- Corruption


def add_noise(images, deviation, seeds):
    """Add normal noise to all channels but alpha. deviation: [N];  seeds: [N] whole numbers, each image has its own noise."""
    random, (C, *size) = torch.Generator(images.device), images.shape[1:]
    colours = 3 if C == 4 else C
    noise = torch.stack([torch.randn(colours, *size, generator=random.manual_seed(seed), device=images.device, dtype=torch.float32)
                         for seed in seeds.tolist()])
    noise = noise.to(images.dtype) * deviation.to(images.device, images.dtype)[:, None, None, None]
    return images + F.pad(noise, [0, 0, 0, 0, 0, C - colours])


def cut_out(images, centre):
    """Set a square of half the shorter side to zero, mid-grey. centre: [N, 2] in images from the upper left corner, x and y."""
    (H, W), device = images.shape[2:], images.device

    def inside(centre, side):
        """[N, side] bool along one axis."""
        low, high = (((centre.double() + end * CUTOUT / 2 * min(H, W) / side) * side).round().to(device)[:, None] for end in (-1, 1))
        return (torch.arange(side, device=device) >= low) & (torch.arange(side, device=device) < high)

    return images.masked_fill(inside(centre[:, 0], W)[:, None, None, :] & inside(centre[:, 1], H)[:, None, :, None], 0)
