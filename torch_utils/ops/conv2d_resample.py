"""2-D convolution with up- or downsampling built in (StyleGAN2, appendix B), with the signature of stylegan2-ada-pytorch."""

import torch.nn.functional as F

from torch_utils.ops.upfirdn2d import centred, conv_transpose, quad, upfirdn2d


def conv2d_resample(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    """Upsample with f, convolve with w, downsample with f; each step is done where it is cheapest.

    x:           [N, C_in, H, W]
    w:           [C_out, C_in / groups, rows, columns]
    f:           low-pass filter of `upfirdn2d.setup_filter`; None is the identity
    up, down:    integer factors
    padding:     a number, (x, y) or (x before, x after, y before, y after) of the upsampled image, beside what centres f
    flip_weight: True correlates (what PyTorch calls convolution), False convolves
    flip_filter: False convolves with f, True correlates
    Returns [N, C_out, H up / down, W up / down] where padding keeps the size.
    """
    rows, columns = w.shape[2:]
    f_rows, f_columns = (1, 1) if f is None else (f.shape[0], f.shape[-1])
    pads = list(quad(padding))
    for factors in ({'up': up}, {'down': down}):
        if max(factors.values()) > 1:
            extra = centred(f_columns, **factors) + centred(f_rows, **factors)
            pads = [p + e for p, e in zip(pads, extra, strict=True)]

    if up == 1 and down == 1:
        return _conv(x, w, pads, 1, groups, flip_weight)
    if up == 1:
        if (rows, columns) == (1, 1):  # filter and drop pixels first: the convolution sees fewer of them
            x = upfirdn2d(x, f, down=down, padding=pads, flip_filter=flip_filter)
            return _conv(x, w, [0] * 4, 1, groups, flip_weight)
        x = upfirdn2d(x, f, padding=pads, flip_filter=flip_filter)
        return _conv(x, w, [0] * 4, down, groups, flip_weight)
    if (rows, columns) == (1, 1) and down == 1:
        x = _conv(x, w, [0] * 4, 1, groups, flip_weight)
        return upfirdn2d(x, f, up=up, padding=pads, gain=up**2, flip_filter=flip_filter)

    # A transposed convolution skips the inserted zeros; the filter, a convolution like w, may as well come after it.
    c_out, c_in = w.shape[:2]
    w = w.reshape(groups, c_out // groups, c_in, rows, columns).transpose(1, 2).reshape(groups * c_in, c_out // groups, rows, columns)
    w = w.flip([2, 3]) if flip_weight else w
    reach = (rows - 1, rows - up, columns - 1, columns - up)  # with this padding nothing is cropped and no zeros are added
    x = conv_transpose(x, w, (up, up), reach, groups)
    pads = [pads[0] - reach[2], pads[1] - reach[3], pads[2] - reach[0], pads[3] - reach[1]]
    x = upfirdn2d(x, f, padding=pads, gain=up**2, flip_filter=flip_filter)
    return x if down == 1 else upfirdn2d(x, f, down=down, flip_filter=flip_filter)


def _conv(x, w, pads, stride, groups, flip_weight):
    """Plain convolution with uneven or negative padding (x before, x after, y before, y after)."""
    w = w if flip_weight or w.shape[2:] == (1, 1) else w.flip([2, 3])
    x0, x1, y0, y1 = pads
    if x0 == x1 >= 0 and y0 == y1 >= 0:
        return F.conv2d(x, w, stride=stride, padding=(y0, x0), groups=groups)
    return F.conv2d(F.pad(x, [x0, x1, y0, y1]), w, stride=stride, groups=groups)
