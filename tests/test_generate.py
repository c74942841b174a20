"""generate.py: what it draws, under which names, and what it says to mistakes."""

import os
import shutil
import time
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

import generate
from dnnlib import image_io
from inference import latents, opening, painter
from tests import tiny_snapshots
from tests.helpers import error_line, run_command
from tests.tiny_snapshots import call, mistake
from torch_utils import distributed
from torch_utils.pixels import to_uint8


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def own_images(G, seeds, label=None):
    """What the generator itself draws, as seeds go: uint8 [N, R, R, C]."""
    G = G.eval().requires_grad_(False)
    z = torch.cat([torch.from_numpy(np.random.RandomState(seed).randn(1, G.z_dim)) for seed in seeds])
    c = None if label is None else label.repeat(len(seeds), 1)
    return to_uint8(G(z, c, noise_mode='const'))


def test_seeds_become_files(tmp_path):
    G = tiny_snapshots.stylegan2(noise_strength=0.2)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    code, out, _err = call(generate.main, f'--network={network}', '--seeds=3,11-12', f'--outdir={tmp_path}/out')
    assert code == 0 and sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['seed0003.png', 'seed0011.png', 'seed0012.png']
    for seed, expected in zip([3, 11, 12], own_images(G, [3, 11, 12]), strict=True):
        assert str(tmp_path / 'out' / f'seed{seed:04d}.png') in out
        assert np.abs(pixels(tmp_path / 'out' / f'seed{seed:04d}.png').astype(int) - expected).max() <= 1


def test_batch_and_company_do_not_matter(tmp_path):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.stylegan2(noise_strength=0.2))
    for name, *args in [('alone', '--seeds=5'), ('company', '--seeds=4-8'), ('batch', '--seeds=4-8', '--batch=5')]:
        for mode in ('const', 'random'):
            assert call(generate.main, f'--network={network}', f'--outdir={tmp_path}/{name}-{mode}', f'--noise-mode={mode}', *args)[0] == 0
    for mode in ('const', 'random'):
        alone = pixels(tmp_path / f'alone-{mode}' / 'seed0005.png')
        assert np.array_equal(alone, pixels(tmp_path / f'company-{mode}' / 'seed0005.png'))
        assert np.abs(alone.astype(int) - pixels(tmp_path / f'batch-{mode}' / 'seed0005.png')).max() <= 1
        assert not np.array_equal(alone, pixels(tmp_path / f'company-{mode}' / 'seed0006.png'))
    assert not np.array_equal(pixels(tmp_path / 'alone-const' / 'seed0005.png'), pixels(tmp_path / 'alone-random' / 'seed0005.png'))


def test_processes_share_seeds_and_rows(tmp_path, monkeypatch):
    """Files: each process draws every second seed. A sheet: each draws every second row, the first writes; rows come by broadcast."""
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.stylegan2())
    options, rows = (f'--network={network}', '--seeds=0-6'), []
    alone = {grid: call(generate.main, *options, *grid, f'--outdir={tmp_path}/alone')[0] for grid in ((), ('--grid',))}
    assert set(alone.values()) == {0}
    monkeypatch.setattr('torch_utils.distributed.init', torch.device)
    monkeypatch.setenv('WORLD_SIZE', '2')

    def broadcast(tensor, source):
        if source == 1 and distributed.rank() == 1:
            rows.append(tensor)
        return rows.pop(0) if source == 1 and distributed.rank() == 0 else tensor

    monkeypatch.setattr('torch_utils.distributed.broadcast_', broadcast)
    for rank, seeds in (('1', [1, 3, 5]), ('0', [0, 2, 4, 6])):
        monkeypatch.setenv('RANK', rank)
        out = tmp_path / rank
        code, said, _ = call(generate.main, *options, f'--outdir={out}')
        assert code == 0 and sorted(path.name for path in out.iterdir()) == [f'seed{seed:04d}.png' for seed in seeds]
        assert all(np.array_equal(pixels(path), pixels(tmp_path / 'alone' / path.name)) for path in out.iterdir())
        assert ('Network' in said) == (rank == '0')
        assert call(generate.main, *options, '--grid', f'--outdir={out}')[0] == 0
        assert (out / 'grid.png').exists() == (rank == '0')
    assert np.array_equal(pixels(tmp_path / '0' / 'grid.png'), pixels(tmp_path / 'alone' / 'grid.png')) and not rows


def test_newest_snapshot_is_found_and_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, 'BUNDLED', tmp_path / 'assets' / 'tiny.safetensors')
    assert 'there is no snapshot under training-runs/: train one (python train.py' in mistake(generate.main)
    tiny_snapshots.save(opening.BUNDLED, tiny_snapshots.stylegan2())
    code, out, _err = call(generate.main, '--seeds=0')
    assert code == 0 and 'Network assets/tiny.safetensors, the bundled model' in out and 'train your own: python train.py' in out
    for number, seed, age in ((2, 0, 60), (1, 1, 0)):
        torch.manual_seed(seed)
        network = tiny_snapshots.save(tmp_path / 'training-runs' / f'0000{number}-x' / 'network-snapshot-000001.safetensors',
                                      tiny_snapshots.stylegan2())
        os.utime(network, (time.time() - age,) * 2)
    code, out, _err = call(generate.main, '--seeds=0')
    assert code == 0 and 'training-runs/00001-x/network-snapshot-000001.safetensors, the newest under' in out
    for folder in (network.parent, 'training-runs'):
        by_folder = call(generate.main, f'--network={folder}', '--seeds=0', '--outdir=b')[1]
        assert f'{network.parent.name}/{network.name}' in by_folder and np.array_equal(pixels('out/seed0000.png'), pixels('b/seed0000.png'))


def test_inr_is_drawn_at_the_size_and_window_asked_for(tmp_path, monkeypatch):
    G = tiny_snapshots.inr(channels=4)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    from inr import render

    ws = latents.latents_of(G.eval(), 0, None)
    for streams in (False, True):  # whole, and band by band
        monkeypatch.setattr(painter, 'STREAM_FROM', 0 if streams else 2**26)
        for image_format in ('png', 'tiff'):
            outdir = tmp_path / f'{image_format}{streams}'
            assert call(generate.main, f'--network={network}', '--seeds=0-1', '--batch=2', '--res=50x21', '--window=-0.5,0,1,0.5',
                        f'--format={image_format}', f'--outdir={outdir}')[0] == 0
            drawn = pixels(outdir / f'seed0000.{image_format}')
            assert drawn.shape == (21, 50, 4)
            expected = to_uint8(render.render(G, ws, 21, 50, (-0.5, 0, 1, 0.5)))[0]
            assert np.abs(drawn.astype(int) - expected).max() <= 1
    assert call(generate.main, f'--network={network}', '--seeds=0', '--window=0,0,1,0.5', f'--outdir={tmp_path}/wide')[0] == 0
    assert pixels(tmp_path / 'wide' / 'seed0000.png').shape == (8, 16, 4)  # keeps its proportions where no size is given


def test_refinements_are_the_renderers(tmp_path):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.inr(resolution=64))
    from inr import refinement, render

    assert generate.REFINEMENTS == refinement.REFINEMENTS
    assert f'[default: {render.DEFAULT_REFINEMENT}]' in next(p for p in generate.main.params if p.name == 'refine').help
    for refine in generate.REFINEMENTS:
        args = [f'--network={network}', '--seeds=0', '--res=150', f'--refine={refine}', f'--outdir={tmp_path}/{refine}']
        assert call(generate.main, *args)[0] == 0
    drawn = [pixels(tmp_path / refine / 'seed0000.png') for refine in generate.REFINEMENTS]
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_a_model_that_cannot_be_tiled_is_drawn_whole_while_it_fits(tmp_path, monkeypatch):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.inr(upsampling='bilinear', instance_norm=True))
    from inr import render

    assert call(generate.main, f'--network={network}', '--seeds=0', '--res=40', f'--outdir={tmp_path}')[0] == 0
    assert pixels(tmp_path / 'seed0000.png').shape == (40, 40, 3)
    monkeypatch.setattr(render, 'WHOLE_BYTES', 1000)
    assert '--res=40x40: this model needs about' in mistake(generate.main, f'--network={network}', '--seeds=0', '--res=40')


def test_stylegan2_is_resized_and_says_so(tmp_path):
    G = tiny_snapshots.stylegan2(channels=1)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    code, out, _err = call(generate.main, f'--network={network}', '--seeds=2', '--res=40x24', f'--outdir={tmp_path}')
    assert code == 0 and 'draws 16x16 only: resized to 40x24 (Lanczos)' in out
    resized = Image.fromarray(own_images(G, [2])[0, :, :, 0]).resize((40, 24), Image.Resampling.LANCZOS)
    assert np.abs(pixels(tmp_path / 'seed0002.png').astype(int) - np.asarray(resized)).max() <= 2
    for option in ('--window=0,0,0.5,0.5', *['--refine=last'] * bool(find_spec('inr'))):  # whose words --refine takes
        assert '--window and --refine need a generator of inr' in mistake(generate.main, f'--network={network}', option)


def test_grid_is_one_sheet(tmp_path):
    G = tiny_snapshots.stylegan2()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    args = [f'--network={network}', '--seeds=0-6', '--grid', '--batch=2', f'--outdir={tmp_path}/out']
    assert call(generate.main, *args)[0] == 0
    sheet = pixels(tmp_path / 'out' / 'grid.png')
    assert sheet.shape == (32, 64, 3) and [p.name for p in (tmp_path / 'out').iterdir()] == ['grid.png']
    for seed, expected in enumerate(own_images(G, range(7))):
        row, column = divmod(seed, 4)
        assert np.abs(sheet[16 * row:16 * row + 16, 16 * column:16 * column + 16].astype(int) - expected).max() <= 1
    assert (sheet[16:, 48:] == 255).all()


@pytest.mark.parametrize('count, size, shape', [
    (1, (8, 8), (1, 1)), (3, (8, 8), (3, 1)), (4, (8, 8), (2, 2)), (7, (8, 8), (4, 2)), (8, (8, 8), (4, 2)), (9, (8, 8), (3, 3)),
    (12, (8, 8), (4, 3)), (32, (8, 8), (8, 4)), (9, (16, 9), (3, 3)), (4, (30, 10), (2, 2)), (2, (10, 30), (2, 1)), (2, (90, 10), (1, 2)),
])
def test_sheet_is_full_and_near_square(count, size, shape):
    assert generate.sheet_shape(count, *size) == shape


def test_classes(tmp_path):
    G = tiny_snapshots.stylegan2(c_dim=3)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G, classes=['cat', 'dog', 'emu'])
    for given, index in (('dog', 1), ('2', 2)):
        assert call(generate.main, f'--network={network}', '--seeds=0', f'--class={given}', f'--outdir={tmp_path}')[0] == 0
        expected = own_images(G, [0], torch.eye(3)[index:index + 1])[0]
        assert np.abs(pixels(tmp_path / 'seed0000.png').astype(int) - expected).max() <= 1
    code, out, _err = call(generate.main, f'--network={network}', '--seeds=1,5', f'--outdir={tmp_path}')  # without one, classes by seed
    assert code == 0 and 'through all 3 (cat, dog, emu)' in out
    for seed, index in ((1, 1), (5, 2)):
        expected = own_images(G, [seed], torch.eye(3)[index:index + 1])[0]
        assert np.abs(pixels(tmp_path / f'seed{seed:04d}.png').astype(int) - expected).max() <= 1
    code, out, _err = call(generate.main, f'--network={network}', '--seeds=0-6', '--grid', f'--outdir={tmp_path}')
    assert code == 0 and '3 x 3 images of 16x16; columns: cat, dog, emu' in out
    assert np.array_equal(pixels(tmp_path / 'grid.png')[16:32, 32:48], pixels(tmp_path / 'seed0005.png'))
    assert call(generate.main, f'--network={network}', '--seeds=0-6', '--class=dog', '--grid', f'--outdir={tmp_path}')[0] == 0
    assert pixels(tmp_path / 'grid.png').shape[:2] == (32, 64)
    assert "--class=dgo: no such class. Did you mean 'dog'?" in mistake(generate.main, f'--network={network}', '--class=dgo')
    assert '--class=3: no such class' in mistake(generate.main, f'--network={network}', '--class=3')
    plain = tiny_snapshots.save(tmp_path / 'b.safetensors', tiny_snapshots.stylegan2())
    code, out, _err = call(generate.main, f'--network={plain}', '--seeds=0', '--class=cat', f'--outdir={tmp_path}')
    assert code == 0 and 'Warning: --class=cat has no effect' in out


def test_labels_of_numbers(tmp_path):
    G = tiny_snapshots.stylegan2(c_dim=3)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    assert call(generate.main, f'--network={network}', '--seeds=0', '--label=0.2,0,1', f'--outdir={tmp_path}')[0] == 0
    expected = own_images(G, [0], torch.tensor([[0.2, 0, 1]]))[0]
    assert np.abs(pixels(tmp_path / 'seed0000.png').astype(int) - expected).max() <= 1
    for given, line in [('1,0', '--label: 2 numbers, but the labels of this network have 3'), ('1,x,0', "'1,x,0' is not a list of numbers"),
                        ('1,nan,0', 'all numbers must be finite'), ('1,1e40,0', 'numbers from -1e+15 to 1e+15')]:
        assert line in mistake(generate.main, f'--network={network}', f'--label={given}')
    assert 'give one of them' in mistake(generate.main, f'--network={network}', '--label=1,0,0', '--class=1')


def test_truncation(tmp_path):
    G = tiny_snapshots.stylegan2()
    G.mapping.w_avg.normal_()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    drawn = {}
    for name, *args in [('mean', '--psi=0'), ('trunc', '--trunc=0'), ('none', '--psi=0', '--psi-cutoff=0'), ('plain',)]:
        assert call(generate.main, f'--network={network}', '--seeds=1', f'--outdir={tmp_path}/{name}', *args)[0] == 0
        drawn[name] = pixels(tmp_path / name / 'seed0001.png')
    mean = to_uint8(G.eval().synthesis(G.mapping.w_avg.repeat(1, G.num_ws, 1), noise_mode='const').detach())[0]
    assert np.abs(drawn['mean'].astype(int) - mean).max() <= 1
    assert np.array_equal(drawn['mean'], drawn['trunc']) and np.array_equal(drawn['none'], drawn['plain'])
    assert not np.array_equal(drawn['mean'], drawn['plain'])


def test_truncation_to_a_class(tmp_path):
    G = tiny_snapshots.stylegan2(c_dim=3)
    G.mapping.w_avg.normal_()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G, classes=['a/1', 'b', 'a/2'])
    np.savez(tmp_path / 'w.npz', w=torch.randn(1, G.num_ws, G.w_dim).numpy())
    asked, projected = (f'--network={network}', f'--outdir={tmp_path}', '--psi=0'), f'--projected-w={tmp_path}/w.npz'
    means = latents.class_means(G.eval(), [latents.one_hot(G, 1), latents.one_hot(G, 2)])
    expected = [to_uint8(G.synthesis(mean.repeat(1, G.num_ws, 1), noise_mode='const').detach())[0] for mean in means]
    assert np.abs(expected[0].astype(int) - expected[1]).max() > 1
    for of, name in (('--seeds=7', 'seed0007'), (projected, 'projected')):
        code, out, err = call(generate.main, *asked, of, '--class=b', '--psi-to=class')
        assert code == 0 and 'Truncated' not in out, err
        drawn = pixels(tmp_path / f'{name}.png')
        assert np.abs(drawn.astype(int) - expected[0]).max() <= 1
        assert '--psi-to=class: towards that of the class' in call(generate.main, *asked, of, '--class=b')[1]
        assert np.abs(drawn.astype(int) - pixels(tmp_path / f'{name}.png')).max() > 1
    for given in ([], ['--class=a']):
        said = mistake(generate.main, *asked, projected, '--psi-to=class', *given)
        assert 'say of which one class it is, with --class or --label' in said
    assert 'no effect without --psi' in call(generate.main, *asked[:2], '--seeds=7', '--class=b', '--psi-to=class')[1]
    plain = tiny_snapshots.save(tmp_path / 'plain.safetensors', tiny_snapshots.stylegan2())
    said = call(generate.main, f'--network={plain}', '--seeds=7', '--psi=0.5', '--psi-to=class', f'--outdir={tmp_path}')[1]
    assert '--psi-to=class has no effect, this network has no classes' in said


def test_projected_w(tmp_path):
    G = tiny_snapshots.stylegan2().eval()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    ws = latents.latents_of(G, 4, None)
    assert call(generate.main, f'--network={network}', '--seeds=4', f'--outdir={tmp_path}')[0] == 0
    expected = pixels(tmp_path / 'seed0004.png')
    np.savez(tmp_path / 'one.npz', w=ws.numpy())
    np.save(tmp_path / 'flat.npy', torch.cat([ws[:, 0], 2 * ws[:, 0]]).numpy())
    for file, name in (('one.npz', 'projected'), ('flat.npy', 'projected0000')):
        assert call(generate.main, f'--network={network}', f'--projected-w={tmp_path / file}', f'--outdir={tmp_path}')[0] == 0
        assert np.array_equal(pixels(tmp_path / f'{name}.png'), expected)
    assert not np.array_equal(pixels(tmp_path / 'projected0001.png'), expected)


def test_projected_w_of_another_network(tmp_path):
    G, other = tiny_snapshots.stylegan2().eval(), tiny_snapshots.stylegan2().eval()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    for name, found_in in (('own', G), ('other', other)):
        latents.save_projection(tmp_path / f'{name}.npz', latents.latents_of(found_in, 4, None), {}, found_in)
    for precision in ('fp32', 'bf16'):
        code, _out, err = call(generate.main, f'--network={network}', f'--projected-w={tmp_path}/own.npz', f'--precision={precision}',
                               f'--outdir={tmp_path}')
        assert code == 0, err
    line = mistake(generate.main, f'--network={network}', f'--projected-w={tmp_path}/other.npz')
    assert 'other.npz: this was found in another network' in line


def test_projected_w_that_does_not_fit(tmp_path):
    G = tiny_snapshots.stylegan2()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    np.savez(tmp_path / 'v.npz', v=np.zeros((1, 8)))
    np.save(tmp_path / 'wide.npy', np.zeros((1, 9)))
    np.save(tmp_path / 'nan.npy', np.full((1, 8), np.nan))
    np.save(tmp_path / 'empty.npy', np.zeros((0, 8)))
    (tmp_path / 'text.npz').write_text('no archive')
    for file, line in [('none.npz', 'no such file; projector.py writes'), ('v.npz', "holds no array 'w', only v"),
                       ('wide.npy', 'or [N, 8] for this network, it is float64 [1, 9]'), ('nan.npy', 'w must be finite numbers'),
                       ('empty.npy', 'it is float64 [0, '), ('text.npz', 'not a readable .npz or .npy')]:
        assert line in mistake(generate.main, f'--network={network}', f'--projected-w={tmp_path / file}')
    assert 'is a folder: give the projected_w.npz' in mistake(generate.main, f'--network={network}', f'--projected-w={tmp_path}')
    assert 'give one of them' in mistake(generate.main, '--seeds=1', f'--projected-w={tmp_path}/v.npz')


@pytest.mark.parametrize('make', [tiny_snapshots.stylegan2, tiny_snapshots.inr])
@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_half_precision_is_near(tmp_path, make, precision):
    G = make(resolution=32)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    for name in ('fp32', precision):
        assert call(generate.main, f'--network={network}', '--seeds=0', f'--precision={name}', f'--outdir={tmp_path}/{name}')[0] == 0
    full, half = (pixels(tmp_path / name / 'seed0000.png').astype(int) for name in ('fp32', precision))
    assert 0 < np.abs(full - half).mean() < (4 if precision == 'bf16' else 1)


@pytest.mark.parametrize('args, line', [
    (['--res=0'], "'0' is out of range: 1 to"),
    (['--res=20000', '--format=webp'], 'webp holds at most 16383 pixels a side'),
    (['--res=9999999'], 'is out of range'),
    (['--seeds=0-'], "'0-' is not a list of whole numbers"),
    (['--seeds=4294967296'], 'too large; 0 to 4294967295'),
    (['--window=0,0,1'], 'write x0,y0,x1,y1'),
    (['--device=cuda:77'], '--device=cuda:77: this machine has'),
    (['--device=abacus'], '--device=abacus: this machine has cpu'),
    (['--network=none.safetensors'], 'no such file: none.safetensors'),
    (['--fromat=png'], '--fromat'),
    (['--batch=0'], '--batch'),
    (['--psi=abc'], "'abc' is not a valid float"),
    (['--psi=nan'], "'nan' is not a finite number"),
    (['--psi=1e40'], '1e+40 is not in the range -100<=x<=100'),
    (['--seeds=5-1'], 'write 1-5'),
    (['--window=1,1,0,0'], 'x0 < x1'),
    (['--network=a.pkl'], 'not a network pickle of stylegan2-ada-pytorch'),
    (['--network=a.png'], 'a.png: not a safetensors file'),
    (['stray'], 'unexpected extra argument'),
])
def test_mistakes_get_one_line(tmp_path, monkeypatch, args, line):
    monkeypatch.chdir(tmp_path)
    Image.new('L', (4, 4)).save('a.png')
    (tmp_path / 'a.pkl').write_bytes(b'')
    assert line in mistake(generate.main, *args)


def test_pictures_without_room(tmp_path, monkeypatch):
    plain = tiny_snapshots.save(tmp_path / 'b.safetensors', tiny_snapshots.stylegan2())
    import psutil

    free = type('Memory', (), {'available': 1000})
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: free)
    args = [f'--network={plain}', '--seeds=0', f'--outdir={tmp_path}/out']
    assert '768 B of pixels do not fit into 1000 B of free memory: lower --res' in mistake(generate.main, *args)
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: type('Disk', (), {'free': 30}))
    assert '768 B of pixels will not fit into the 30 B free' in mistake(generate.main, *args)
    assert not list((tmp_path / 'out').iterdir())


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.stylegan2())

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(image_io, 'png_filter', interrupt)
    assert call(generate.main, f'--network={network}', f'--outdir={tmp_path}/out')[0] == 130
    assert not list((tmp_path / 'out').iterdir())


def test_as_a_program(tmp_path):
    done = run_command('generate.py', '--help')
    assert done.returncode == 0 and '--projected-w' in done.stdout
    assert "'1x' is not a size" in error_line(run_command('generate.py', '--res=1x', cwd=tmp_path))


def test_directions(tmp_path):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.inr())
    given = [f'--network={network}', f'--outdir={tmp_path}/out']
    assert call(generate.main, *given, '--seeds=3')[0] == 0
    assert call(generate.main, *given, '--seeds=3,4', '--direction=1', '--strength=-2..2:3')[0] == 0
    names = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert names == sorted(['seed0003.png', *(f'seed000{seed}{strength}.png' for seed in (3, 4) for strength in ('-2.00', '+0.00',
                                                                                                                 '+2.00'))])
    drawn = {name: pixels(tmp_path / 'out' / name) for name in names}
    assert np.array_equal(drawn['seed0003+0.00.png'], drawn['seed0003.png']) and not np.array_equal(drawn['seed0003+2.00.png'],
                                                                                                    drawn['seed0003.png'])
    assert call(generate.main, *given, '--seeds=3,4', '--direction=1', '--strength=-2..2:3', '--grid')[0] == 0
    sheet = pixels(tmp_path / 'out' / 'grid.png')
    assert sheet.shape == (32, 48, 3) and np.array_equal(sheet[:16, 32:], drawn['seed0003+2.00.png'])
    assert np.array_equal(sheet[16:, :16], drawn['seed0004-2.00.png'])
    assert 'there are the directions 0 to 7' in mistake(generate.main, *given, '--direction=8')
    assert 'give --direction=N' in mistake(generate.main, *given, '--directions=a.npz')
    assert 'a.npz: no such file' in mistake(generate.main, *given, '--direction=0', f'--directions={tmp_path}/a.npz')
    for text, said in (('1..', 'is not a strength'), ('1..2:1', 'out of range'), ('-200..2', 'out of range'), ('nan', 'is not a strength')):
        assert said in mistake(generate.main, *given, '--direction=0', f'--strength={text}')
