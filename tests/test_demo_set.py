"""What is in the box, and the scripts that make it."""

import io
import os
import tarfile
from hashlib import sha256

import numpy as np
import pytest
import torch
from PIL import Image

import train
from dnnlib.util import UserError
from tests.helpers import ROOT, relative_error, script
from tests.tiny_snapshots import call
from tests.training.tiny import make_images
from training.checkpoint import load_networks
from training.data.files import resolve
from training.dataset import ImageDataset, quick_check
from training.options import WINDOW_LABEL_DIM
from training.run_folder import find_latest_snapshot


def test_demo_set():
    assert resolve('demo') == ROOT / 'assets' / 'demo.zip' and os.path.getsize(resolve('demo')) < 4_000_000
    quick_check('demo', use_labels=True, most=200)
    with ImageDataset('demo', use_labels=True) as dataset:
        assert len(dataset) == 3391 and (dataset.resolution, dataset.num_channels, dataset.name) == (64, 3, 'demo')
        assert dataset.class_names == ['smileys', 'people', 'animals', 'food', 'travel', 'activities', 'objects', 'symbols', 'flags']
        counts = np.sum([dataset.get_label(i) for i in range(len(dataset))], axis=0)
        assert counts.min() == 85 and counts[1] == 1881
        for i in range(0, len(dataset), 97):
            image, label = dataset[i]
            assert dataset.files.names[i].startswith(dataset.class_names[label.argmax()])
            assert (image[:, [0, 0, -1, -1], [0, -1, 0, -1]] > 235).sum() >= 6 and image.std() > 10  # a thing on white


def test_the_model_in_the_box_draws_and_judges_as_its_run_in_float32(tmp_path):
    pytest.importorskip('inr')
    pictures = make_images(tmp_path / 'pictures', count=6, resolution=48, classes=3)
    code, _, err = call(train.main, '--cfg=inr-tiny', f'--data={pictures}', '--res=16', '--windows', '--cond', '--batch=4', '--kimg=0.016',
                        '--precision=bf16', '--device=cpu', f'--outdir={tmp_path}/runs')
    assert code == 0, err
    script('bundle_model').bundle([tmp_path / 'runs'], tmp_path / 'box.safetensors')
    run = load_networks(find_latest_snapshot(tmp_path / 'runs'))
    box = load_networks(tmp_path / 'box.safetensors')
    assert [each['G_ema'].init_kwargs['synthesis_kwargs']['num_fp16_res'] for each in (run, box)] == [4, 0]
    z, c, labels = torch.randn(3, 128), torch.eye(3), torch.randn(3, 3 + WINDOW_LABEL_DIM)
    with torch.no_grad():
        exact, found = run['G_ema'](z, c, force_fp32=True), box['G_ema'](z, c)
        judged = run['D'](exact, labels, force_fp32=True), box['D'](exact, labels)
    assert found.dtype == judged[1].dtype == torch.float32
    assert relative_error(found, exact) < 1e-2 and relative_error(judged[1], judged[0]) < 5e-2 and box['meta']['images'] == 16


def test_the_model_in_the_box_can_be_the_mean_of_several_snapshots(tmp_path):
    pictures = make_images(tmp_path / 'pictures', count=6, resolution=16)
    for name, more in (('run', []), ('seed', ['--seed=1']), ('width', ['--width=0.5'])):
        code, _, err = call(train.main, '--cfg=inr-tiny', f'--data={pictures}', '--batch=4', '--kimg=0.016', '--tick=0.008', '--snap=1',
                            '--device=cpu', f'--outdir={tmp_path}/{name}', *more)
        assert code == 0, err
    snapshots = sorted(tmp_path.glob('run/*/network-snapshot-*'))
    assert len(snapshots) == 2
    bundle = script('bundle_model').bundle
    bundle(snapshots, tmp_path / 'box.safetensors')
    first, last, box = (load_networks(path) for path in (*snapshots, tmp_path / 'box.safetensors'))
    moved = [max(relative_error(last[name].state_dict()[key], value) for key, value in first[name].state_dict().items() if value.any())
             for name in ('G_ema', 'D')]
    assert min(moved) > 1e-2
    for key, value in box['G_ema'].state_dict().items():
        mean = (first['G_ema'].state_dict()[key].double() + last['G_ema'].state_dict()[key].double()) / 2
        torch.testing.assert_close(value.double(), mean, rtol=1e-3, atol=1e-6)
    for key, value in box['D'].state_dict().items():
        torch.testing.assert_close(value, last['D'].state_dict()[key], rtol=1e-3, atol=1e-6)
    assert box['meta']['images'] == 16
    for other in ('seed', 'width'):
        with pytest.raises(UserError, match='not of one run'):
            bundle([snapshots[0], find_latest_snapshot(tmp_path / other)], tmp_path / 'box.safetensors')
    with pytest.raises(UserError, match='pictures: no snapshot below it'):
        bundle([pictures], tmp_path / 'box.safetensors')


def test_demo_script_makes_the_same_zip_twice(tmp_path, monkeypatch):
    make = script('make_demo_data')
    emoji = io.BytesIO()
    Image.new('RGBA', (256, 264), (255, 0, 0, 128)).save(emoji, 'webp', lossless=True)
    with tarfile.open(tmp_path / 'images.tgz', 'w:gz') as tar:
        for name in ('2764-fe0f', '23-fe0f-20e3', '0023-fe0f-20e3', '1f3f4-e0067_e0062_e0065_e006e_e0067'):
            member = tarfile.TarInfo(f'package/assets/{name}.webp')
            member.size = len(emoji.getvalue())
            tar.addfile(member, io.BytesIO(emoji.getvalue()))
    monkeypatch.setattr(make, 'IMAGES', ('package', sha256((tmp_path / 'images.tgz').read_bytes()).hexdigest()))
    (tmp_path / 'groups.txt').write_text(
        '# group: Smileys & Emotion\n2764 FE0F ; fully-qualified # x E0.6 red heart\n2764 ; unqualified # x E0.6 other\n'
        '# group: Symbols\n0023 FE0F 20E3 ; fully-qualified # x E0.6 keycap: #\n'
        '# group: Flags\n1F3F4 E0067 E0062 E0065 E006E E0067 E007F ; fully-qualified # x E5.0 flag: C\u00f4te d\u2019Or\n',
        encoding='utf-8')
    for dest in ('one.zip', 'two.zip'):
        make.main.callback(tmp_path / 'images.tgz', tmp_path / 'groups.txt', tmp_path / dest, 64, 90, 1)
    assert (tmp_path / 'one.zip').read_bytes() == (tmp_path / 'two.zip').read_bytes()
    with ImageDataset(tmp_path / 'one.zip', use_labels=True) as dataset:
        assert dataset.files.names == ['flags/flag_cote_dor.avif', 'smileys/red_heart.avif', 'symbols/keycap_hash-2.avif',
                                       'symbols/keycap_hash.avif']
        assert dataset.label_dim == 9 and [int(dataset.get_label(i).argmax()) for i in range(4)] == [8, 0, 7, 7]
        assert np.abs(dataset[0][0][:, 32, 32].astype(int) - [255, 127, 127]).max() <= 3
        assert (dataset[0][0][:, 32, 0] > 180).all()  # made square by white at the sides
