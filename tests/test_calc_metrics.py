"""calc_metrics.py as a user meets it: scores, the record, mistakes; and scores while training."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

import calc_metrics
import train
from dnnlib.util import UserError, cached_path, file_digest
from metrics import detectors
from metrics.registry import parse
from tests import tiny_snapshots
from tests.helpers import run_command
from tests.metrics.test_metric_main import Means
from tests.tiny_snapshots import call, mistake
from tests.training.tiny import ROW, make_images, make_set
from training import checkpoint
from training.dataset import ImageDataset
from training.presets import PRESETS

NET = 'efficientnet-lite0'


@pytest.fixture(autouse=True)
def light(monkeypatch, tmp_path):
    """Every name but those of files loads the mean of each channel."""
    load = detectors.load
    monkeypatch.setattr(detectors, 'load', lambda name, files=None, device='cpu': Means() if name == NET else load(name, files, device))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('INR_CACHE_DIR', str(tmp_path / 'cache'))


@pytest.fixture
def data(tmp_path):
    return make_images(tmp_path / 'data', count=12)


def test_help_needs_no_torch():
    done = run_command('calc_metrics.py', '--help')
    assert done.returncode == 0 and 'fid50k_full' in done.stdout and 'scale_consistency' in done.stdout


def test_scores_of_a_network_are_printed_and_recorded(tmp_path, data):
    run = tmp_path / 'runs' / '00000-x'
    network = tiny_snapshots.save(run / 'network-snapshot-000001.safetensors', tiny_snapshots.inr(), data=data)
    (run / 'training_options.json').write_text('{}')
    names = f'fd_{NET},kd_{NET},fd_{NET}_2x,scale_consistency'
    code, out, err = call(calc_metrics.main, f'--network={network}', f'--metrics={names}', '--num=8', '--batch=3')
    assert code == 0, err
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    assert [line['metric'] for line in lines] == [f'fd_{NET}_8', f'kd_{NET}_8', f'fd_{NET}_8_2x', 'scale_consistency_8']
    assert all(np.isfinite(list(line['results'].values())).all() for line in lines)
    assert [line.get('scale') for line in lines] == [1, 1, 2, None]
    assert lines[2]['results'][f'fd_{NET}_8_2x'] != lines[0]['results'][f'fd_{NET}_8']
    assert lines[0]['num'] == 8 and lines[0]['num_real'] == 12 and lines[0]['network'] == str(network) and lines[0]['processes'] == 1
    assert f'fd_{NET}_8 {lines[0]["results"][f"fd_{NET}_8"]:.6g}' in out and '8 images: the distance is larger' in out
    again = call(calc_metrics.main, f'--network={network}', f'--metrics=fd_{NET}', '--num=8', '--batch=3', '--record=here.jsonl')
    assert again[0] == 0 and json.loads((tmp_path / 'here.jsonl').read_text())['results'] == lines[0]['results']
    assert not list((tmp_path / 'cache').rglob('drawn-*'))  # sums over drawn images go when they are done


@pytest.mark.parametrize('given', ['none', 'runs', 'run', 'file'])
def test_a_score_says_of_which_file_it_is(tmp_path, data, given):
    """However the network was named: its path, digest and kimg, in the run's own record."""
    run = tmp_path / 'training-runs' / '00003-x'
    old = tiny_snapshots.save(run / 'network-snapshot-000000.safetensors', tiny_snapshots.stylegan2(), data=data)
    network = tiny_snapshots.save(run / 'network-snapshot-000001.safetensors', tiny_snapshots.stylegan2(), data=data)
    (run / 'training_options.json').write_text('{}')
    named = {'none': [], 'runs': ['--network=training-runs'], 'run': [f'--network={run}'], 'file': [f'--network={old}']}[given]
    code, out, err = call(calc_metrics.main, *named, f'--metrics=fd_{NET}', '--num=4')
    assert code == 0 and f'recorded in {run.relative_to(tmp_path)}' in out.replace(f'{tmp_path}/', ''), err
    (line,) = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    scored = old if given == 'file' else network
    assert (tmp_path / line['network']).samefile(scored) and line['kimg'] == 0
    assert line['network_sha256'] == hashlib.sha256(scored.read_bytes()).hexdigest() != file_digest(network if given == 'file' else old)
    assert not (tmp_path / 'out').exists()


def test_scores_of_a_network_with_classes(tmp_path):
    data = make_images(tmp_path / 'labelled', count=6, classes=2)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.stylegan2(c_dim=2), data=data, classes=['a', 'b'])
    code, out, err = call(calc_metrics.main, f'--network={network}', f'--metrics=cs_{NET}', '--num=20')
    assert code == 0 and f'cs_{NET}_20_mean 1' in out, err
    other = make_images(tmp_path / 'other', count=6, classes=3)
    assert 'has 2 classes and' in mistake(calc_metrics.main, f'--network={network}', f'--data={other}', f'--metrics=cs_{NET}')


def test_scores_of_a_network_whose_classes_are_in_groups_of_the_data(tmp_path, monkeypatch):
    asked = []
    data = tmp_path / 'data.zip'
    make_set(data, 40, labels=[0, 1] * 20, classes=['a', 'b'])
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.stylegan2(c_dim=3), data=data, classes=['b/1', 'a/1', 'b/2'])
    code, out, err = call(calc_metrics.main, f'--network={network}', f'--metrics=cs_{NET}', '--num=20')
    assert code == 0 and "has the groups of this network's 3" in out and f'cs_{NET}_20_mean 1' in out, err
    with ImageDataset(data, use_labels=True) as dataset:
        label, count = calc_metrics.labels_in_groups(3, ['b/1', 'a/1', 'b/2'], dataset)
        drawn = [int(label(n).argmax()) for n in range(count)]
        assert drawn[::2] == [1] * 20 and set(drawn[1::2]) == {0, 2} and label(0).tolist() == [0, 1, 0]
        assert drawn == [int(label(n).argmax()) for n in range(count)]
        label, count = calc_metrics.labels_in_groups(3, ['b/1', 'a/1', 'b/2'], dataset, [0, 0, 30])
        assert [int(label(n).argmax()) for n in range(count)] == [1, 2] * 20
        monkeypatch.setattr(calc_metrics, 'labels_in_groups', lambda *args: asked.append(args) or (label, count))
        network = tiny_snapshots.save(tmp_path / 'b.safetensors', tiny_snapshots.stylegan2(c_dim=3), data=data,
                                      classes=['b/1', 'a/1', 'b/2'], class_sizes=[4, 20, 16])
        code, out, err = call(calc_metrics.main, f'--network={network}', f'--metrics=cs_{NET}', '--num=20')
        assert code == 0 and asked[0][0] == 3 and asked[0][3] == [4, 20, 16], err
        monkeypatch.undo()
        assert calc_metrics.labels_in_groups(2, ['a', 'b'], dataset) is None and calc_metrics.labels_in_groups(2, [], dataset) is None
        label, count = calc_metrics.labels_in_groups(2, ['b', 'a'], dataset)  # the same in another order
        assert [int(label(n).argmax()) for n in range(count)] == [1, 0] * 20
        with pytest.raises(UserError, match='has 2 classes and .* not the same'):
            calc_metrics.labels_in_groups(2, ['b', 'c'], dataset)
        with pytest.raises(UserError, match='has 3 classes and'):
            calc_metrics.labels_in_groups(3, ['b/1', 'c/1', 'b/2'], dataset)


def test_scores_of_a_folder(tmp_path, data):
    code, out, _err = call(calc_metrics.main, f'--images={data}', f'--data={data}', f'--metrics=fd_{NET},pr_{NET}')
    assert code == 0 and f'pr_{NET}_12_precision 1  pr_{NET}_12_recall 1' in out
    assert abs(float(out.split(f'fd_{NET}_12 ')[1].split()[0])) < 1e-9
    assert (tmp_path / 'out' / 'metrics.jsonl').is_file()


def test_a_score_is_never_lost_for_want_of_a_place(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert calc_metrics.add_to(tmp_path / 'file' / 'metrics.jsonl', '{"a": 1}') == calc_metrics.OUT
    assert capsys.readouterr().out == f'Not recorded in {tmp_path}/file/metrics.jsonl (File exists)\n'
    calc_metrics.OUT.write_text('{"half')
    assert calc_metrics.add_to(calc_metrics.OUT, '{"a": 2}') == calc_metrics.OUT
    assert calc_metrics.OUT.read_text() == '{"half\n{"a": 2}\n'
    calc_metrics.OUT.unlink()
    calc_metrics.OUT.mkdir()
    assert calc_metrics.add_to(calc_metrics.OUT, '{"a": 3}') == calc_metrics.OUT and capsys.readouterr().out.count('Not recorded in') == 1


def test_offline_it_says_which_file_from_where_and_where_to(tmp_path, data, monkeypatch):
    url = 'http://127.0.0.1:9/inception-2015-12-05.pt'
    monkeypatch.setitem(detectors.PUBLISHED, 'inception', [(url, '0' * 64)])
    line = mistake(calc_metrics.main, f'--images={data}', f'--data={data}', '--metrics=fid5k')
    assert f'cannot download {url}' in line and f'put the file by hand at {cached_path(url)}' in line and '--detector=PATH' in line


@pytest.mark.parametrize('args, line', [
    (['--images=empty', '--data=data'], 'empty holds no images'),
    (['--images=texts', '--data=data'], 'texts holds no images'),
    (['--images=none', '--data=data'], 'none does not exist'),
    (['--images=three', '--data=data', f'--metrics=pr_{NET}'], 'N, M > k = 3'),
    (['--images=three'], '--images needs --data'),
    (['--images=three', '--network=x', '--data=data'], 'give one of them'),
    (['--metrics=fid50'], "Did you mean 'fid50k'"),
    (['--images=three', '--data=data', '--metrics=ppl2_wend_efficientnet-lite0'], 'looks at a generator: give --network'),
    (['--network=a.safetensors', '--data=data', '--metrics=fid5k', '--detector=none.pt'], 'no such file: none.pt'),
    (['--network=a.safetensors', '--data=data', '--metrics=kpl'], 'needs a keypoint extractor: --keypoints=dlib68'),
    (['--network=a.safetensors', '--data=data', '--metrics=scale_consistency'], 'this one draws 16x16 only'),
    (['--network=a.safetensors', f'--metrics=fd_{NET}'], "the network's own data set cannot be read"),
    (['--num=1'], '--num'),
])
def test_mistakes_get_one_line(tmp_path, data, args, line):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'texts').mkdir()
    (tmp_path / 'texts' / 'a.txt').write_text('text')
    make_images(tmp_path / 'three', count=3)
    tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.stylegan2())
    if not any(arg.startswith('--metrics') for arg in args):
        args = [*args, f'--metrics=fd_{NET}']
    assert line in mistake(calc_metrics.main, *args)


# ---- While training


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(PRESETS, 'tiny', ROW)


def ten_images(text):
    """The metrics of a list, with ten images each."""
    return [parse(name).with_num(10) for name in text.split(',')]


def best(run):
    return checkpoint.read_header(run / 'network-best.safetensors')['images']


def test_training_scores_its_snapshots(tiny, data, tmp_path, monkeypatch):
    """The first metric keeps the best; one that is not available costs a line."""
    url = 'http://127.0.0.1:9/i.pt'
    monkeypatch.setitem(detectors.PUBLISHED, 'inception', [(url, '0' * 64)])
    monkeypatch.setattr('metrics.during_training.registry.parse_list', ten_images)
    args = ['--cfg=tiny', f'--data={data}', '--kimg=0.016', '--tick=0.004', '--snap=1', '--device=cpu']
    code, out, err = call(train.main, *args, f'--metrics=fd_{NET},fid5k', '--metric-every=2')
    assert code == 0, err
    run = tmp_path / 'training-runs' / '00000-data-tiny'
    stats = [json.loads(line) for line in (run / 'stats.jsonl').read_text().splitlines()]
    scored = {line['images']: line[f'fd_{NET}_10'] for line in stats if f'fd_{NET}_10' in line}
    assert list(scored) == [8, 16] and best(run) == min(scored, key=scored.get)
    log = (run / 'log.txt').read_text()
    assert log.count(f'failed: inception: cannot download {url}') == 2 and 'Finished at 0.016 kimg' in log
    assert out.count('Warning: --metrics=') == 1
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    assert [(line['images'], line['metric']) for line in lines] == [(8, f'fd_{NET}_10'), (16, f'fd_{NET}_10')]
    assert json.loads((run / 'training_options.json').read_text())['run']['metrics'] == f'fd_{NET},fid5k'
    assert 'so that must stay the first' in mistake(train.main, '--resume=latest', '--kimg=0.02', '--metrics=fid5k')
    assert call(train.main, '--resume=latest', '--kimg=0.02', '--metrics=none')[0] == 0


def test_higher_is_better_for_some(tiny, data, tmp_path, monkeypatch):
    monkeypatch.setattr('metrics.during_training.registry.parse_list', ten_images)
    figures = iter([0.2, 0.9, 0.4])
    monkeypatch.setattr('metrics.precision_recall.precision_recall', lambda real, fake, k, share: (next(figures), 0.0))
    args = ['--cfg=tiny', f'--data={data}', '--kimg=0.012', '--tick=0.004', '--snap=1', '--device=cpu', f'--metrics=pr_{NET}']
    assert call(train.main, *args)[0] == 0
    run = tmp_path / 'training-runs' / '00000-data-tiny'
    assert best(run) == 8
    assert torch.load(checkpoint.state_path(checkpoint.network_path(run, 12)), weights_only=True)['best'] == -0.9


def test_misspelt_metrics_of_training(tiny, data):
    assert "Did you mean 'fid5k'" in mistake(train.main, '--cfg=tiny', f'--data={data}', '--metrics=fid5')


def test_pictures_of_another_size(tmp_path, data):
    (tmp_path / 'large').mkdir()
    for i in range(4):
        Image.new('RGB', (32, 32), (i, 0, 0)).save(tmp_path / 'large' / f'{i}.png')
    code, out, _err = call(calc_metrics.main, f'--images={tmp_path}/large', f'--data={data}', f'--metrics=fd_{NET}')
    assert code == 0 and 'The images are 32x32, the real ones 16x16' in out
