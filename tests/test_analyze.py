"""analyze.py as a user meets it: every figure of every kind of generator, its numbers, and mistakes in one line."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import analyze
import generate
from inference.latents import slerp
from inference.sheets import outlined, sheet
from inference.video import write_if_possible
from tests import tiny_snapshots
from tests.helpers import ROOT, run_command
from tests.tiny_snapshots import call, mistake
from tests.training.tiny import make_images
from torch_utils.pixels import to_uint8
from training.checkpoint import load_networks


@pytest.fixture(scope='module')
def stylegan2(tmp_path_factory):
    return tiny_snapshots.save(tmp_path_factory.mktemp('stylegan2') / 'a.safetensors', tiny_snapshots.stylegan2(noise_strength=0.25))


@pytest.fixture(scope='module')
def inr(tmp_path_factory):
    features = dict(random=4, raw=True)
    return tiny_snapshots.save(tmp_path_factory.mktemp('inr') / 'b.safetensors', tiny_snapshots.inr(c_dim=2, features=features, noise=True))


def figure(tmp_path, network, name, *args):
    """(numbers, picture) that a figure wrote."""
    code, out, err = call(analyze.main, name, f'--network={network}', f'--outdir={tmp_path}/figures', '--device=cpu', *args)
    assert code == 0, err
    with Image.open(tmp_path / f'figures/{name}.png') as picture:
        return json.loads((tmp_path / f'figures/{name}.json').read_text()), picture.convert('RGB')


def test_help_needs_no_torch():
    done = run_command('analyze.py', '--help')
    assert done.returncode == 0 and 'frequencies  Frequencies of the Fourier' in done.stdout
    code = "import sys, analyze; sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib')))"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


def test_frequencies(tmp_path, inr):
    numbers, picture = figure(tmp_path, inr, 'frequencies', '--seeds=0-3')
    assert numbers['unit'] == 'cycles per image' and numbers['blocks']['b4']['random']['rows'] == 4 and picture.width > 500


def test_macs_of_a_network(tmp_path, inr):
    numbers, _ = figure(tmp_path, inr, 'macs', '--against=stylegan2')
    convolutions = 512**2 * 9 * (16 + 16 + 64 + 64 + 256)  # of StyleGAN2 at 4, 8 and 16; those that upsample work at the size below
    own = [row for row in numbers if row['model'] == 'stylegan2-tiny']  # as the header of this snapshot has it
    assert [row['res'] for row in own] == [16, 32] and all(set(row) == {'model', 'res', 'gmacs', 'seconds'} for row in numbers)
    assert own[0]['gmacs'] < own[1]['gmacs'] and all(row['seconds'] > 0 for row in numbers)
    assert [row['gmacs'] for row in numbers if row['model'] == 'stylegan2'] == [pytest.approx(convolutions / 1e9, rel=0.02)] * 2


def test_macs_of_a_preset_need_no_weights(tmp_path):
    pytest.importorskip('inr')
    code, _, err = call(analyze.main, 'macs', '--cfg=paper', '--res=64', '--no-seconds', f'--outdir={tmp_path}')
    assert code == 0, err
    rows = {(row['model'], row['res']): row for row in json.loads((tmp_path / 'macs.json').read_text())}
    assert {model for model, _ in rows} == {'paper', 'stylegan2'} and {res for _, res in rows} == {16, 32, 64, 128}
    assert rows['stylegan2', 16]['gmacs'] == rows['stylegan2', 128]['gmacs'] and rows['paper', 16]['seconds'] is None
    assert rows['paper', 16]['gmacs'] < rows['paper', 64]['gmacs'] / 3 < rows['paper', 128]['gmacs'] / 10


def test_zoom_outlines_the_trained_window(tmp_path, inr):
    numbers, picture = figure(tmp_path, inr, 'zoom', '--seeds=3', '--window=-0.5,-0.5,1.5,1.5', '--size=256')
    assert numbers['trained image at'] == [[64, 64, 192, 192]]
    pixels = np.asarray(picture)[-256:, -256:]
    assert (pixels[64, 64:192] == [255, 0, 0]).all() and (pixels[191, 64:192] == [255, 0, 0]).all()
    assert not (pixels[63, 64:192] == [255, 0, 0]).all()


def test_superres_beside_enlargements(tmp_path, inr):
    numbers, picture = figure(tmp_path, inr, 'superres', '--seeds=3', '--refine=last', '--class=1')
    found = numbers['pictures']['seed 3']
    assert sorted(found) == ['bicubic', 'inr', 'lanczos'] and picture.height > 3 * 128
    psnr = {method: [values['PSNR of the average against the trained size, dB'] for values in found[method].values()] for method in found}
    assert all(len(values) == 4 and values[0] is None for values in psnr.values())
    assert psnr['bicubic'][1] > 25 and psnr['inr'][1] < psnr['bicubic'][1]  # a refined last grid samples other points than an enlargement
    assert {'2x', '4x', '8x'} < set(found['inr'])


def test_interpolate_has_a_row_of_parameters_for_an_inr_alone(tmp_path, inr, stylegan2):
    numbers, _ = figure(tmp_path, inr, 'interpolate', '--seeds=1,2', '--steps=5')
    steps = numbers['RMS step between neighbours, of 255']
    assert list(steps) == ['z (slerp)', 'w', 'parameters', 'pixels'] and len(steps['w']) == 4
    assert max(steps['pixels']) < 1.3 * min(steps['pixels'])
    numbers, _ = figure(tmp_path, stylegan2, 'interpolate', '--seeds=1,2', '--steps=5')
    assert 'parameters' not in numbers['RMS step between neighbours, of 255']


@pytest.mark.parametrize('network', ['inr', 'stylegan2'])
def test_truncation_to_the_mean_leaves_no_difference_between_seeds(tmp_path, network, request):
    numbers, _ = figure(tmp_path, request.getfixturevalue(network), 'truncation', '--seeds=0-4', '--psi=0', '--psi=0.5', '--psi=1')
    spread = numbers['deviation between seeds, of 255']
    assert spread[0] == 0 < spread[1] < spread[2]


def test_mix_of_all_layers_is_the_other_image(tmp_path, stylegan2):
    _, all_layers = figure(tmp_path, stylegan2, 'mix', '--seeds=0-1', '--styles=7', '--layers=0-5')
    pixels = np.asarray(all_layers)
    cells = [pixels[20 + 100 * row:20 + 100 * row + 96, -96:] for row in range(3)]
    assert np.array_equal(cells[0], cells[1]) and np.array_equal(cells[0], cells[2])
    numbers, half = figure(tmp_path, stylegan2, 'mix', '--seeds=0-1', '--styles=7')
    assert numbers['layers'] == [3, 4, 5] and not np.array_equal(np.asarray(half), pixels)


def test_artifacts_are_the_ones_far_from_the_others(tmp_path, stylegan2):
    numbers, _ = figure(tmp_path, stylegan2, 'artifacts', '--seeds=0-9', '--show=3')
    strange, typical = numbers['least typical'].values(), numbers['most typical'].values()
    assert len(strange) == len(typical) == 3 and min(strange) >= numbers['median'] >= max(typical) > 0


def test_geometry_by_weights_and_by_points_agree(tmp_path, inr):
    numbers, _ = figure(tmp_path, inr, 'geometry', '--seeds=0', '--angle=20', '--class=0')
    assert numbers['largest difference of both, of an image in [-1, 1]'] < 1e-3


def test_a_sheet_of_nothing_is_an_error():
    for rows in ([], [[]]):
        with pytest.raises(ValueError, match='a sheet of no pictures'):
            sheet(rows)


def test_noise_strengths(tmp_path, inr, stylegan2):
    strengths = figure(tmp_path, stylegan2, 'noise')[0]['strengths']
    assert strengths == {name: 0.25 for name in ('b4.conv1', 'b8.conv0', 'b8.conv1', 'b16.conv0', 'b16.conv1')}
    assert set(figure(tmp_path, inr, 'noise')[0]['strengths'].values()) == {0.0}


@pytest.mark.parametrize('args, expected', [
    (['zoom', '--window=0.5,0,0.2,1'], "'0.5,0,0.2,1' is empty"),
    (['macs', '--cfg=stylgan2'], "'stylgan2' is not known. Did you mean 'stylegan2'?"),
    (['macs', '--cfg=stylegan2', '--res=100'], "'100' is not one of '16'"),
    (['macs', '--res=64'], '--res is the training resolution of a preset: give --cfg with it'),
    (['zoom', '--seeds=3-1'], 'runs backwards'),
    (['truncation', '--psi=nan'], "'nan' is not a finite number"),
    (['geometry', '--shift', '1', 'inf'], "'inf' is not a finite number"),
    (['zoom', '--network=none.safetensors'], 'no such file: none.safetensors'),
    (['zoom', '--network=a', '--cfg=stylegan2'], 'give one of them'),
    (['interpolate', '--seeds=3', '--cfg=stylegan2-tiny', '--res=16'], 'interpolate: give two seeds or more'),
    (['mix', '--layers=99', '--cfg=stylegan2-tiny', '--res=16'], 'this network has the layers 0 to 5'),
    (['artifacts', '--seeds=3', '--cfg=stylegan2-tiny', '--res=16'], 'artifacts: give 8 seeds or more'),
    *(([name, '--cfg=stylegan2-tiny', '--res=16'], f'{name} needs a generator of inr') for name in
      ('zoom', 'superres', 'geometry', 'frequencies')),
    (['mix', '--styles=4294967296'], '--styles: 4294967296 is too large; 0 to 4294967295'),
])
def test_mistakes_get_one_line(tmp_path, monkeypatch, args, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in mistake(analyze.main, *args)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name, cfg, expected', [
    ('noise', 'inr', 'noise: this network was trained without spatial noise, so there are no strengths to show: give one with --network'),
    ('geometry', 'inr', 'geometry: this generator has learned constants in the cells of its grids'),
])
def test_what_a_class_does_not_have(tmp_path, monkeypatch, name, cfg, expected):
    pytest.importorskip('inr')
    monkeypatch.chdir(tmp_path)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.inr())
    assert expected in mistake(analyze.main, name, f'--network={network}')


def test_unwritable_folder(stylegan2):
    assert '/proc/x' in mistake(analyze.main, 'truncation', f'--network={stylegan2}', '--seeds=0', '--outdir=/proc/x')


# ---- Sheets


def test_sheet_places_pictures_and_leaves_empty_places_white():
    red, blue = (np.full((10, 12, 3), colour, np.uint8) for colour in ([255, 0, 0], [0, 0, 255]))
    pixels = np.asarray(sheet([[red, None], [blue, red[:6, :6]]]))
    assert pixels.shape == (10 + 4 + 10, 12 + 4 + 6, 3)
    assert (pixels[:10, :12] == [255, 0, 0]).all() and (pixels[:10, 16:] == 255).all() and (pixels[14:, :12] == [0, 0, 255]).all()
    assert (pixels[14:20, 16:] == [255, 0, 0]).all()
    named = np.asarray(sheet([[red, red]], ['row'], ['one', 'two']))
    assert named.shape[0] == 30 and named.shape[1] > 30 and (named[:20] != 255).any()


def test_grey_and_transparent_pictures_become_rgb():
    grey, clear = np.full((4, 4, 1), 7, np.uint8), np.zeros((4, 4, 4), np.uint8)
    assert (np.asarray(sheet([[grey, clear]]))[:, [0, -1]] == [[7] * 3, [255] * 3]).all()
    assert (outlined(grey, (1, 1, 3, 3))[1, 1] == [255, 0, 0]).all()


def test_slerp_keeps_the_length_between_equal_ones():
    a, b = np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])
    assert slerp(a, b, 0.5) == pytest.approx(np.array([[2**0.5, 2**0.5]])) and slerp(a, b, 0) == pytest.approx(a)
    assert slerp(a, 2 * a, 0.5) == pytest.approx(1.5 * a)


def test_video_without_ffmpeg_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'imageio_ffmpeg', None)
    assert not write_if_possible(tmp_path / 'a.mp4', [])
    assert 'No video: imageio-ffmpeg is not installed' in capsys.readouterr().out and list(tmp_path.iterdir()) == []


def test_nearest_finds_planted_copies(tmp_path, stylegan2):
    """Trained on what it draws, with some of it flipped: the figure says so."""
    G = load_networks(stylegan2, only=('G_ema',))['G_ema']
    folder = tmp_path / 'data'
    folder.mkdir()
    for seed in range(8):
        drawn = to_uint8(G(torch.from_numpy(np.random.RandomState(seed).randn(1, 8)), None, noise_mode='const'))[0]
        Image.fromarray(drawn[:, ::-1] if seed == 5 else drawn).save(folder / f'{seed}.png')
    numbers, picture = figure(tmp_path, stylegan2, 'nearest', f'--data={folder}', '--seeds=5,2,30', '--show=3', '--near=2')
    for view in ('pixels', 'features'):
        found = numbers[view]
        assert found['items'][:2] == [5, 2] and found['mirrored'][:2] == [True, False]
        assert max(found['ratios'][:2]) < 0.01 < found['ratios'][2] and found['copies'] >= 2 / 3
    assert set(numbers['shown'][:2]) == {5, 2} and numbers['training images'] == 8 and picture.width > 5 * 96
    make_images(tmp_path / 'large', resolution=32)
    command = ['nearest', f'--network={stylegan2}', '--device=cpu', '--seeds=0-2']
    assert 'at least 3 of 16x16 are needed' in mistake(analyze.main, *command, f'--data={tmp_path / "large"}')
    assert 'data set cannot be read' in mistake(analyze.main, *command)
    assert 'give --network, not --cfg' in mistake(analyze.main, 'nearest', '--cfg=stylegan2-tiny')


def test_classes_are_measured_one_by_one(tmp_path, stylegan2):
    """Real images of one class are what the network draws of it, those of the other are noise."""
    G, data, random = tiny_snapshots.stylegan2(c_dim=3), tmp_path / 'data.zip', np.random.RandomState(1)
    with zipfile.ZipFile(data, 'w') as archive:
        for number in range(24):
            z, label = torch.from_numpy(np.random.RandomState(100 + number).randn(1, 8)), torch.eye(3)[[1]]
            pixels = to_uint8(G(z, label, noise_mode='const'))[0] if number % 2 else random.randint(0, 256, (16, 16, 3), np.uint8)
            with archive.open(f'{number:02d}.png', 'w') as file:
                Image.fromarray(pixels).save(file, 'png')
        labels = [[f'{number:02d}.png', number % 2] for number in range(24)]
        archive.writestr('dataset.json', json.dumps({'classes': ['noise', 'drawn'], 'labels': labels}))
    names = ['noise/1', 'drawn/1', 'drawn/2']
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G, data=data, classes=names, class_sizes=[12, 12, 0])
    numbers, picture = figure(tmp_path, network, 'classes', '--seeds=0-19', '--show=5')
    assert numbers['real images'] == {'noise': 12, 'drawn': 12} and picture.width > 5 * 16
    assert abs(numbers['classes']['drawn']) < 0.1 * numbers['classes']['noise']
    assert numbers['mean'] == pytest.approx(sum(numbers['classes'].values()) / 2)
    other = tiny_snapshots.save(tmp_path / 'b.safetensors', G, data=data, classes=names, class_sizes=[12, 0, 12])  # not that of the data
    apart = figure(tmp_path, other, 'classes', '--seeds=0-19')[0]['classes']
    assert apart['drawn'] > 100 > 50 > numbers['classes']['drawn'] and apart['noise'] == numbers['classes']['noise']
    one, _ = figure(tmp_path, network, 'classes', '--seeds=0-19', '--class=drawn')
    assert one['classes'] == {'drawn': numbers['classes']['drawn']}
    command = ['classes', f'--network={network}', '--device=cpu', '--seeds=0-2']
    assert '--class=drwn: no such class' in mistake(analyze.main, *command, '--class=drwn')
    assert f'{data} has no images of drawn/2' in mistake(analyze.main, *command, '--class=drawn/2')
    assert 'has no classes with names' in mistake(analyze.main, *command, f'--data={make_images(tmp_path / "plain")}')
    numbers_alone = make_images(tmp_path / 'numbers', count=2)
    (numbers_alone / 'dataset.json').write_text('{"classes": ["noise", "drawn"], "labels": [["00.png", [0, 1]], ["01.png", [1, 1]]]}')
    assert 'has no classes with names' in mistake(analyze.main, *command, f'--data={numbers_alone}')
    assert 'this network has no classes with names' in mistake(analyze.main, 'classes', f'--network={stylegan2}', '--device=cpu')


@pytest.mark.parametrize('method', ['sefa', 'pca'])
def test_directions(tmp_path, inr, method):
    numbers, picture = figure(tmp_path, inr, 'directions', f'--method={method}', '--count=3', '--layers=0-2', '--strength=-1..1:3',
                              '--show=2')
    assert numbers['method'] == method and numbers['layers'] == [0, 1, 2] and numbers['strengths'] == [-1, 0, 1]
    assert len(numbers['lengths']) == 3 and 0 < sum(numbers['shares']) <= 1 and picture.width > 6 * 96 and picture.height > 2 * 96
    arguments = [f'--network={inr}', f'--directions={numbers["file"]}', '--direction=2', '--strength=1', '--seeds=1',
                 f'--outdir={tmp_path}']
    code, out, err = call(generate.main, *arguments)
    assert code == 0 and 'seed0001+1.00.png' in out, err
    assert 'there are the directions 0 to 2' in mistake(generate.main, *arguments[:2], '--direction=3')
