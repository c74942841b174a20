"""What a projection is to find: pictures of any size and kind as the generator would draw them, and masks."""

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from dnnlib.util import UserError
from inference.latents import classes_of_group
from training.data.files import DEMO, BadImage, decode_8bit, opened
from training.data.transforms import Target, cropped, fit, with_channels
from training.dataset import ImageDataset

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def read_picture(path):
    """The picture in a file, upright, in mode L, RGB or RGBA, and whether it had to be turned. Raises UserError for what is no picture."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f'{path} is a folder: give one image file')
    if not path.is_file():
        raise UserError(f'{path}: no such image file')
    data = path.read_bytes()
    try:
        with opened(io.BytesIO(data)) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return decode_8bit(data), turned
    except BadImage as err:
        raise UserError(f'{path}: {err}; give a whole PNG, JPEG, WebP, TIFF, BMP or GIF file') from None


def read_target(path, size, channels):
    """The picture in a file as uint8 [H, W, C]: its middle with the proportions of size = (width, height), resized to that (Lanczos), alpha
    over white. Prints what was done to it."""
    image, turned = read_picture(path)
    own, done = image.size, ['turned upright (EXIF)'] if turned else []
    if image.mode == 'RGBA' and channels != 4:
        if image.getextrema()[3][0] < 255:
            done.append('laid over white')
        image = with_channels(image, 3, WHITE)
    if channels == 1 and image.mode == 'RGB' and np.ptp(np.asarray(image), axis=2).any():
        done.append('made grey')
    image = with_channels(image, channels, WHITE)
    if (middle := cropped(image, *size).size) != own:
        done.append('cut to its middle {}x{}'.format(*middle))
    if middle != tuple(size):
        done.append('resized to {}x{} (Lanczos)'.format(*size))
    print(f'Target {path}: {own[0]}x{own[1]}' + ''.join(f', {what}' for what in done))
    return np.asarray(fit(image, Target(*size, 'center-crop', channels))).reshape(*size[::-1], channels)


def read_mask(path, size):
    """The mask in a file as bool [H, W]: white counts, black and transparent do not; cut and resized as targets are."""
    image, _turned = read_picture(path)
    image = cropped(with_channels(with_channels(image, 3, BLACK), 1, BLACK), *size).resize(size, Image.Resampling.BOX)
    mask = np.asarray(image) > 127
    if not mask.any():
        raise UserError(f'--mask={path}: it is black all over, so there is nothing to fit; white marks what counts')
    print(f'Mask {path}: fits {mask.mean():.0%} of the target')
    return mask


def box_of(mask, smallest=32):
    """The smallest part of a picture that holds all the mask counts, at least `smallest` pixels a side where the picture has them.

    mask: bool [H, W], not all False;  returns (rows, columns), two slices
    """
    sides = []
    for axis in (1, 0):
        counted = np.flatnonzero(mask.any(axis=axis))
        size = mask.shape[1 - axis]
        length = min(max(counted[-1] + 1 - counted[0], smallest), size)
        first = min(max((counted[0] + counted[-1] + 1 - length) // 2, 0), size - length)
        sides.append(slice(int(first), int(first + length)))
    return tuple(sides)


def first_of_data_set(dataset, size, channels, label_dim):
    """The first image of the data set that a snapshot was trained on.

    dataset: what the snapshot's header says of it
    size, channels, label_dim: of the generator, size its (width, height)
    Returns (uint8 [H, W, C], its label: numbers, None without, or the name of a group of the network's classes where the set's classes are
    those groups). Raises UserError for a set that cannot be read or is another one.
    """
    path = dataset['path']
    if Path(path).name == DEMO.name and not Path(path).exists():  # trained on the demo set in another place
        path = DEMO
    try:
        with ImageDataset(path, use_labels=label_dim > 0, resolution=dataset.get('res')) as images:
            pixels, label = images[0]
            name = images.files.names[0]
            group = str((images.class_names or range(images.label_dim))[int(label.argmax())]) if label_dim and images.can_group else None
    except UserError as error:
        raise UserError(f"the network's own data set cannot be read ({error}): choose an image with --target=FILE") from None
    in_group = bool(label_dim) and len(label) != label_dim and bool(classes_of_group(group, dataset.get('classes') or []))
    if pixels.shape != (channels, *size[::-1]) or (label_dim and not in_group and label.shape != (label_dim,)):
        raise UserError(f'{path} is not what the network was trained on, its images are {list(pixels.shape)}: give --target=FILE')
    print(f'Target {name} of {path}')
    return pixels.transpose(1, 2, 0), group if in_group else label.tolist() if label_dim else None
