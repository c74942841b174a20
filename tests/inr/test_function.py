"""One image as a file of its own: equal to its generator, read with care, drawn by a command."""

import json
import runpy
import struct
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import generate
from inr import fixed, function, render
from inr.generator import Generator
from inr.hypernetwork import Generator as Hypernetwork
from inr.refinement import REFINEMENTS
from tests import tiny_snapshots
from tests.helpers import ROOT, relative_error
from tests.tiny_snapshots import call, mistake
from torch_utils.pixels import to_uint8

WINDOW = (-0.3, -0.2, 1.4, 1.1)
KINDS = {
    'constants': dict(features=dict(log=16, constants=3)),
    'linear': dict(upsampling='linear', features=dict(log=8, random=4, raw=True)),
    'bilinear': dict(upsampling='bilinear'),
    'generated': dict(features=dict(log=4, generated=5), coord_skips=True, conv_clamp=0.5),
    'cips': dict(fmm_rank=None, input_resolution='full', input_features=dict(learned=6, cosine=False)),
    'any size': dict(upsampling='linear', middles=True, features=dict(log=8, random=4, raw=True, fine=4, footprint='pixel', damped=True)),
    'periodic': dict(upsampling='linear', periodic='x', features=dict(log=8, random=4, raw=True, footprint='larger')),
    'torus': dict(upsampling='linear', middles=True, periodic='xy', input_features=dict(random=4, raw=True, fine=4, footprint='pixel'),
                  features=dict(log=8, raw=True, constants=2, fine=4, footprint='larger', damped=True)),
    'oblong': dict(img_size=[112, 64], upsampling='linear', middles=True, periodic='y',
                   features=dict(log=8, constants=2, footprint='pixel')),
    'tall': dict(img_size=[64, 80], features=dict(log=8, raw=True, constants=2)),
    'generated pixels': dict(middles=True, features=dict(log=4, generated=5, footprint='pixel'), coord_skips=True),
    'tanh': dict(squash='tanh', noise=True),
}


def generator(kind):
    torch.manual_seed(2)
    if kind == 'hypernetwork':
        return Hypernetwork(8, 0, 8, 64, 3, dict(num_layers=1), dict(channel_max=8, fmm_rank=2)).eval()
    options = dict(dict(channel_base=512, channel_max=8, fmm_rank=2), **KINDS[kind])
    size = options.pop('img_size', None)
    G = Generator(8, 0, 8, 64, 4, dict(num_layers=1), options, img_size=size).eval()
    for name, parameter in G.named_parameters():
        if name.endswith('bias'):
            parameter.data.normal_()
    return G


def flat():
    G = generator('linear')
    return fixed.function_of(G, torch.zeros(1, G.num_ws, 8))


@pytest.mark.parametrize('kind', [*KINDS, 'hypernetwork'])
def test_a_function_is_its_generators_image(kind):
    G = generator(kind)
    ws = torch.randn(2, G.num_ws, 8)
    taken, other = (fixed.function_of(G, each) for each in ws.split(1))
    for options in [G.img_size[::-1], (90, 70, WINDOW), (20, 30)]:
        drawn = render.render(G, ws, *options)
        assert relative_error(taken.render(*options), drawn[:1]) < 1e-5
        assert relative_error(other.render(*options), drawn[1:]) < 1e-5
    points = taken.synthesis.pyramid.trained_points()
    assert relative_error(taken.synthesis.draw(taken.ws, points, impl='ref'), G.synthesis(ws[:1], noise_mode='none', impl='ref')) < 1e-5


@pytest.mark.parametrize('kind', ['constants', 'any size', 'periodic', 'hypernetwork'])
def test_a_file_gives_the_image_in_half_precision(tmp_path, kind):
    G = generator(kind)
    ws = torch.randn(1, G.num_ws, 8)
    taken = fixed.function_of(G, ws, refine='last', window=WINDOW)
    (tmp_path / 'a.safetensors').write_bytes(taken.to_bytes())
    read = function.load(tmp_path / 'a.safetensors')
    assert read.form == taken.form
    assert 0 < relative_error(read.render(70, 90), render.render(G, ws, 70, 90, WINDOW, 'last')) < 3e-3
    drawn = [read.render(150, 150, refine=refine) for refine in REFINEMENTS]
    assert not torch.equal(drawn[0], drawn[1])
    (tmp_path / 'b.safetensors').write_bytes(taken.to_bytes(half=False))
    assert torch.equal(function.load(tmp_path / 'b.safetensors').render(70, 90), taken.render(70, 90))


@pytest.mark.parametrize('kind, what', [('bilinear', 'bilinear'), ('torus', None), ('oblong', None), ('linear', None)])
def test_what_render_alone_draws_is_named(kind, what):
    G = generator(kind)
    special = fixed.function_of(G, torch.zeros(1, G.num_ws, 8)).form.special
    assert special is None if what is None else what in special


def test_numbers_beyond_half_precision_are_kept():
    taken = flat()
    taken.tensors['b4.layer0.weight'] = taken.tensors['b4.layer0.weight'] * 1e6
    assert b'"b4.layer0.weight":{"dtype":"F32"' in taken.to_bytes()[:8000].replace(b' ', b'')


def test_what_is_no_function_is_refused(tmp_path):
    for G, line in [(tiny_snapshots.stylegan2(), 'draws no function of a point; a generator of inr does'),
                    (tiny_snapshots.inr(upsampling='bilinear', instance_norm=True), 'pixels of this network depend on each other'),
                    (tiny_snapshots.inr(noise=True), 'leave it out with --noise-mode=none')]:
        for name, parameter in G.named_parameters():
            if name.endswith('noise_strength'):
                parameter.data.fill_(0.5)
        network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
        args = [f'--network={network}', '--seeds=0', '--format=function', f'--outdir={tmp_path}/out']
        assert line in mistake(generate.main, *args) and not list((tmp_path / 'out').iterdir())
    assert call(generate.main, *args, '--noise-mode=none')[0] == 0  # of the last
    for option in ('--res=64', '--grid', '--precision=bf16', '--noise-mode=random'):
        assert f'{option.split("=")[0]}' in mistake(generate.main, *args, option)


def test_generate_writes_what_the_command_draws(tmp_path):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.inr(upsampling='linear', resolution=32))
    args = [f'--network={network}', '--seeds=3', '--window=-0.5,0,1,0.5', f'--outdir={tmp_path}']
    assert call(generate.main, *args, '--res=50x21')[0] == 0
    code, out, _err = call(generate.main, *args, '--format=function')
    assert code == 0 and f'{tmp_path}/seed0003.safetensors' in out
    function.main([f'{tmp_path}/seed0003.safetensors', '--res=50x21', f'--out={tmp_path}/again.png'])
    first, again = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ('seed0003.png', 'again.png'))
    assert first.shape == again.shape == (21, 50, 3) and np.abs(first - again).max() <= 2 and first.std() > 5
    whole = function.load(tmp_path / 'seed0003.safetensors')
    function.main([f'{tmp_path}/seed0003.safetensors', '--window=0,0,1,1', '--refine=last'])
    expected = to_uint8(whole.render(32, 32, (0, 0, 1, 1), 'last'))[0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'seed0003.png')), expected)  # beside the file, at its own size


def damaged(path, change):
    """The file with a JSON header of the function that `change` has gone over."""
    content = path.read_bytes()
    (size,) = struct.unpack('<Q', content[:8])
    header = json.loads(content[8 : 8 + size])
    own = json.loads(header['__metadata__'][fixed.METADATA])
    change(own)
    header['__metadata__'][fixed.METADATA] = json.dumps(own)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + content[8 + size :])


@pytest.mark.parametrize('change, line', [
    (lambda form: form.update(version=3), 'version 3 of the format'),
    (lambda form: form.update(upsampling='cubic'), "'cubic' is not known"),
    (lambda form: form.pop('blocks'), 'damaged'),
    (lambda form: form['blocks'][0].pop('grid'), 'damaged'),
    (lambda form: form['blocks'][0].update(channels=5), 'b4.layer0.weight is missing, left over or of another shape'),
    (lambda form: form['blocks'].pop(), 'is missing, left over or of another shape'),
    (lambda form: form.update(window=['a', 1, 2, 3]), "window is ['a', 1, 2, 3]"),
    (lambda form: form.update(window=[0, 0, 1]), 'window is [0, 0, 1]'),
    (lambda form: form.update(extent=[0, 1]), 'extent is [0, 1]'),
    (lambda form: form.update(img_resolution='x'), 'damaged'),
    (lambda form: form['blocks'][0].update(slope='x', grid=None), 'damaged'),
])
def test_damaged_files_are_one_line(tmp_path, capsys, change, line):
    path = tmp_path / 'a.safetensors'
    path.write_bytes(flat().to_bytes())
    damaged(path, change)
    with pytest.raises(SystemExit) as end:
        function.main([str(path)])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count('\n') == 1 and error.startswith('Error: ') and line in error and str(path) in error


def test_mistakes_are_one_line(tmp_path, capsys):
    path = tmp_path / 'a.safetensors'
    path.write_bytes(flat().to_bytes())
    (tmp_path / 'text').write_text('no tensors')
    save_file({'a': torch.ones(1)}, tmp_path / 'list', {fixed.METADATA: '[]'})
    for args, line in [
        (['none.safetensors'], 'none.safetensors'), ([str(tmp_path / 'text')], 'not a file of generate.py'), ([str(tmp_path)], ''),
        ([str(tmp_path / 'list')], 'damaged'),
        ([str(ROOT / 'assets' / 'emoji.safetensors')], 'holds no function; generate.py --format=function writes such files'),
        ([str(path), '--res=0'], 'at least 1'), ([str(path), '--res=ab'], '--res'), ([str(path), '--window=1,1,0,0'], 'has no area'),
        ([str(path), '--window=1,1'], 'x0,y0,x1,y1'), ([str(path), '--refine=best'], '--refine'), ([str(path), '--out=a.xyz'], 'xyz'),
        ([str(path), f'--out={tmp_path}/none/a.png'], 'none'), ([], 'file'),
    ]:  # fmt: skip
        with pytest.raises(SystemExit) as end:
            function.main(args)
        error = capsys.readouterr().err
        assert end.value.code == 2 and error.count('\n') == 1 and error.startswith('Error: ') and line in error, error
    assert sorted(each.name for each in tmp_path.iterdir()) == ['a.safetensors', 'list', 'text']


def test_as_a_program(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['inr/function.py', 'none.safetensors'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(function.__file__, run_name='__main__')
    assert end.value.code == 2 and 'No such file' in capsys.readouterr().err
