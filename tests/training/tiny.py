"""A data set and a recipe small enough to train in a test."""

import json
import zipfile

import numpy as np
from PIL import Image

from training import config
from training.dataset import ImageDataset

ROW = dict(
    summary='', source='', cost='', G='training.networks.Generator', z_dim=8, w_dim=8, mapping_layers=2, synthesis={},
    g_channel_base=128, g_channel_max=8, g_fp16_res=0, d_channel_base=128, d_channel_max=8, d_fp16_res=0, conv_clamp=None, mbstd_group=2,
    batch=4, g_lr=0.0025, d_lr=0.002, betas=(0, 0.99), eps=1e-8, gamma=0.5, r1_interval=3, pl_weight=2, g_reg_interval=2, style_mixing=0.5,
    ema_kimg=0.01, ema_rampup=None, kimg=1, mirror=False,
)


def make_images(folder, count=10, resolution=16, classes=0):
    """A folder of random RGB images, with labels if `classes`. resolution: a side, or (width, height)"""
    width, height = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    random = np.random.RandomState(0)
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(random.randint(0, 256, [height, width, 3], np.uint8)).save(folder / f'{i:02d}.png')
    if classes:
        labels = ', '.join(f'["{i:02d}.png", {i % classes}]' for i in range(count))
        (folder / 'dataset.json').write_text(f'{{"labels": [{labels}]}}')
    return folder


def make_set(path, count=5, size=16, mode='RGB', labels=None, classes=None):
    """A zip of images of random pixels img00.png, img01.png, ...; returns the pixels [N, C, H, W]."""
    shape = (count, size, size) + {'L': (), 'RGB': (3,), 'RGBA': (4,)}[mode]
    pixels = np.random.RandomState(1).randint(0, 256, shape, dtype=np.uint8)
    with zipfile.ZipFile(path, 'w') as archive:
        for i, image in enumerate(pixels):
            with archive.open(f'img{i:02d}.png', 'w') as file:
                Image.fromarray(image).save(file, 'png')
        if labels is not None:
            pairs = [[f'img{i:02d}.png', label] for i, label in enumerate(labels)]
            archive.writestr('dataset.json', json.dumps({'labels': pairs, 'classes': classes}))
    return pixels.reshape(count, size, size, -1).transpose(0, 3, 1, 2)


def tiny_run(folder, row=None, use_labels=False, **given):
    """(data set, configuration) of a run on a folder of images. row: what differs from ROW; given: options as in config.build."""
    dataset = ImageDataset(folder, use_labels=use_labels)
    data = config.DataConfig(str(folder), dataset.digest, dataset.resolution, 3, len(dataset), dataset.label_dim, None, False, None,
                             size=config.size_of_data(dataset))
    return dataset, config.build('tiny', {**ROW, **(row or {})}, data, **given)
