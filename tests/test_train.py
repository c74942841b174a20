"""train.py as a user meets it: new runs, resumed runs, mistakes, signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch
from PIL import Image

import train
from tests.helpers import ROOT, run_command
from tests.tiny_snapshots import call, mistake
from tests.training.tiny import ROW, make_images
from training import checkpoint, plugins, run_folder, starting
from training.dataset import ImageDataset
from training.presets import PRESETS


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(PRESETS, 'tiny', ROW)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('data') / 'shapes', classes=2)


@pytest.fixture
def images(source, tmp_path, monkeypatch):
    """A data set of its own, and a working folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(source, tmp_path / 'shapes')


@pytest.fixture
def started(images):
    """The folder of a run of two steps."""
    code, out, err = call(train.main, '--cfg=tiny', f'--data={images}', '--kimg=0.008', '--device=cpu')
    assert code == 0, err
    return images.parent / 'training-runs' / '00000-shapes-tiny'


def test_help_needs_no_torch():
    done = run_command('train.py', '--help')
    assert done.returncode == 0 and '--batch-gpu' in done.stdout and 'stylegan2-tiny: StyleGAN2 small enough' in done.stdout
    code = "import sys, train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


def test_new_run_and_resume(started, capsys):
    assert checkpoint.snapshots(started) == [checkpoint.network_path(started, 8)]
    assert json.loads((started / 'training_options.json').read_text())['run']['kimg'] == 0.008
    code, out, _ = call(train.main, '--resume=latest')
    assert code == 0 and 'is at 0.008 of 0.008 kimg already: --kimg=N makes it longer' in out
    code, out, _ = call(train.main, '--resume=latest', '--kimg=0.012', '--cfg=tiny', '--gamma=2', '--workers=0')
    assert code == 0 and 'from network-snapshot-000000_008.safetensors' in out
    assert ', with --cfg=tiny --gamma=2.0 --kimg=0.012 --workers=0\n' in out
    assert [path.name for path in started.parent.iterdir()] == [started.name]
    assert run_folder.find_resumable(started) == checkpoint.network_path(started, 12)
    assert json.loads((started / 'training_options.json').read_text())['loss']['gamma'] == 2
    code, out, _ = call(train.main, f'--resume={checkpoint.network_path(started, 8)}', '--kimg=0.012')
    assert code == 0 and (started / 'superseded' / 'network-snapshot-000000_012.safetensors').is_file()


def test_classes_are_balanced_from_where_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / 'shapes', count=9, classes=2)
    code, out, err = call(train.main, '--cfg=tiny', f'--data={tmp_path / "shapes"}', '--cond', '--kimg=0.004', '--device=cpu')
    assert code == 0 and 'small classes' not in out, err
    sizes = ImageDataset(tmp_path / 'shapes', use_labels=True).class_sizes
    options = next(tmp_path.glob('training-runs/*/training_options.json'))
    assert json.loads(options.read_text())['data'].pop('class_sizes') == sizes and len(sizes) == 2 and sum(sizes) == 9
    for given in ('--class-balance=1 --kimg=0.008', '--kimg=0.012'):  # what was given stays
        content = json.loads(options.read_text())
        del content['data']['class_sizes']  # of an older run
        options.write_text(json.dumps(content))
        code, out, err = call(train.main, '--resume=latest', *given.split())
        assert checkpoint.read_header(sorted(options.parent.glob('network-snapshot-*'))[-1])['dataset']['class_sizes'] == sizes
        assert code == 0 and ': 9 images, small classes more often, with a balance of 1, 16x16' in out, err


def test_resume_before_the_first_snapshot_starts_over(started):
    for path in (*started.glob('network-*'), *started.glob('training-state-*')):
        path.unlink()
    code, out, _ = call(train.main, f'--resume={started}', '--kimg=0.004')
    assert code == 0 and 'from the start, it has no snapshot yet' in out
    assert checkpoint.snapshots(started) == [checkpoint.network_path(started, 4)]


@pytest.mark.parametrize('part', ['network-snapshot-000000_012.safetensors', 'training-state-000000_012.pt'])
def test_a_snapshot_that_is_cut_off_is_passed_over(started, part):
    assert call(train.main, '--resume=latest', '--kimg=0.012')[0] == 0
    os.truncate(started / part, 1000)
    code, out, err = call(train.main, '--resume=latest', '--kimg=0.016')
    assert code == 0 and 'from network-snapshot-000000_008.safetensors' in out, err
    assert f'Passing over training-runs/{started.name}/{part}' in out
    for path in started.glob('training-state-*'):
        os.truncate(path, 1000)
    code, out, err = call(train.main, '--resume=latest', '--kimg=0.02')
    assert code == 2 and err.count('\n') == 1 and 'has no snapshot to go on from: ' in err
    assert checkpoint.network_path(started, 16).is_file()


def test_data_may_move_but_not_change(started, images):
    moved = images.rename(images.with_name('moved'))
    assert f'{images}, the data of this run, is not there any more: say where it is with --data' in mistake(train.main, '--resume=latest')
    code, out, err = call(train.main, '--resume=latest', f'--data={moved}', '--kimg=0.012')
    assert code == 0, err
    assert json.loads((started / 'training_options.json').read_text())['data']['path'] == str(moved)
    shutil.copy(moved / '00.png', moved / '01.png')
    assert 'is not what this run was trained on' in mistake(train.main, '--resume=latest', '--kimg=1')


def test_labels_that_are_lists_of_numbers(images):
    pairs = [[path.name, [i / 10, i % 2, 1]] for i, path in enumerate(sorted(images.glob('*.png')))]
    (images / 'dataset.json').write_text(json.dumps({'labels': pairs}))
    code, out, err = call(train.main, '--cfg=tiny', f'--data={images}', '--cond', '--kimg=0.004', '--device=cpu')
    assert code == 0, err
    G = checkpoint.load_networks(next(images.parent.glob('training-runs/*/network-snapshot-*')), only=['G_ema'])['G_ema']
    assert G.c_dim == 3
    with ImageDataset(images, use_labels=True) as dataset:
        assert sorted(dataset.get_label(i).tolist() for i in range(3)) == [pytest.approx([i / 10, i % 2, 1]) for i in range(3)]


def test_a_run_on_shards_goes_on_where_it_was(images, tmp_path):
    """--data is a pattern; the snapshot after 16 images is the same in one go and in two."""
    from training.data.opening import open_files
    from training.data.sharding import write_shards

    write_shards(open_files(images), None, tmp_path / 'shards', 1 << 20)
    weights = []
    for kimgs in ((0.016,), (0.008, 0.016)):
        options = ('--cfg=tiny', f'--data={tmp_path}/shards/*.tar')
        for kimg in kimgs:
            code, out, err = call(train.main, *options, f'--kimg={kimg}', '--device=cpu')
            assert code == 0, err
            options = ('--resume=latest',)
        run = max((images.parent / 'training-runs').glob('*-shards-tiny'))
        assert json.loads((run / 'training_options.json').read_text())['data']['path'] == f'{tmp_path}/shards/*.tar'
        weights.append(safetensors.torch.load_file(run / 'network-snapshot-000000_016.safetensors'))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_bad_picture_is_left_out_and_the_run_goes_on_after_its_repair(started, images, capfd):
    whole = (images / '01.png').read_bytes()
    (images / '01.png').write_bytes(whole[:-20])
    line = mistake(train.main, '--resume=latest', '--kimg=0.016')
    assert f'if pictures in it were repaired or removed, say so with --data={images}' in line
    code, out, err = call(train.main, '--resume=latest', f'--data={images}', '--kimg=0.016')
    assert code == 0, err
    assert 'Note: going on with ' in out and f'{images}: 01.png: cannot be decoded' in err + capfd.readouterr().err
    stored = json.loads((started / 'training_options.json').read_text())['data']
    assert stored['digest'] == ImageDataset(images).digest  # so that it is resumed as it is from now on
    (images / '01.png').write_bytes(whole)
    code, out, err = call(train.main, '--resume=latest', f'--data={images}', '--kimg=0.02')
    assert code == 0 and json.loads((started / 'training_options.json').read_text())['data']['digest'] != stored['digest'], err
    Image.new('RGB', (32, 32)).save(images / '00.png')
    for path in sorted(images.glob('*.png'))[1:]:
        shutil.copy(images / '00.png', path)
    assert 'give its data with --data' in mistake(train.main, '--resume=latest', f'--data={images}', '--kimg=1')


@pytest.mark.parametrize('option, stored', [('--cfg=stylegan2', 'tiny'), ('--batch=8', '4'), ('--seed=7', '0'), ('--cond', 'False'),
                                            ('--freeze-d=1', '0'), ('--mirror', 'False'), ('--subset=3', 'None'),
                                            ('--precision=fp16', 'fp32')])
def test_what_a_run_is_cannot_change(started, option, stored):
    line = mistake(train.main, '--resume=latest', option)
    assert f'{option} cannot change when a run is resumed, ' in line and f'00000-shapes-tiny has {stored}' in line


@pytest.mark.parametrize('network', ['generator', 'discriminator'])
def test_a_run_folder_runs_no_code(started, network, monkeypatch):
    monkeypatch.syspath_prepend(started.parent)
    friend = started.rename(started.with_name('friendrun'))
    (friend / 'evil.py').write_text('import pathlib\npathlib.Path("ran").touch()\nclass Network:\n    pass\n')
    tree = json.loads((friend / 'training_options.json').read_text())
    tree[network]['class_name'] = 'friendrun.evil.Network'
    (friend / 'training_options.json').write_text(json.dumps(tree))
    line = mistake(train.main, f'--resume={friend}', '--dry-run')
    assert 'names another class, friendrun.evil.Network' in line and not os.path.exists('ran')


def test_a_discriminator_is_named_by_its_class(images, monkeypatch):
    monkeypatch.setitem(PRESETS, 'tiny', {**ROW, 'D': 'training.networks.Generator'})
    code, _, err = call(train.main, '--cfg=tiny', f'--data={images}', '--dry-run')
    assert code == 2 and 'the configuration of D does not make a training.networks.Generator' in err


def test_init_from_starts_a_new_run(started, images, monkeypatch):
    monkeypatch.setitem(PRESETS, 'tiny', {**ROW, 'ema_kimg': 10, 'ema_rampup': 0.05})
    weights = checkpoint.network_path(started, 8)
    code, out, err = call(train.main, '--cfg=tiny', f'--data={images}', '--kimg=0.004', f'--init-from={weights}', '--cond')
    assert code == 0, err
    new = started.parent / '00001-shapes-tiny'
    assert checkpoint.snapshots(new) == [checkpoint.network_path(new, 4)]
    assert 'EMA:         half-life 10 kimg (0.999723 a step), at most 0.25 of the images seen' in out
    assert f'of its numbers, from G of {weights}; in part: mapping.fc0.weight; as initialized, since the file has none: ' in out


def test_frozen_layers_stay_what_they_were(started, images):
    weights = checkpoint.network_path(started, 8)
    code, _, err = call(train.main, '--cfg=tiny', f'--data={images}', '--kimg=0.004', f'--init-from={weights}', '--freeze-d=3', '--aug=ada')
    assert code == 0, err
    new = checkpoint.network_path(started.parent / '00001-shapes-tiny', 4)
    before, after = (checkpoint.load_networks(path, only=['D'])['D'].state_dict() for path in (weights, new))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert not {key for key in changed if key.startswith(('b16.fromrgb', 'b16.conv'))} and {'b16.skip.weight', 'b8.conv0.weight'} < changed
    code, out, err = call(train.main, '--resume=latest', '--kimg=0.008', '--aug=fixed', '--p=0.5')
    assert code == 0 and 'aug p 0.500 r ' in out, err
    smaller = make_images(images.parent / 'smaller', resolution=32)
    line = mistake(train.main, '--cfg=tiny', f'--data={smaller}', f'--init-from={weights}', '--freeze-d=3')
    assert '--freeze-d=3: ' in line and 'has no D.b32.' in line


def test_dry_run_writes_nothing(images):
    code, out, err = call(train.main, '--cfg=stylegan2-tiny', f'--data={images}', '--dry-run', '--cond', '--lr=0.001', '--batch-gpu=4')
    assert code == 0, err
    for expected in ('10 images, and as many mirrored left to right (--no-mirror leaves them out), 16x16, 3 channels', '2 classes',
                     'G optimizer: Adam, lr 0.001,', 'lr 0.000941176', 'time:        about ', ' for 1000 kimg, from one pass on ',
                     '4 pass(es) of 4', 'parameters:  G ', 'memory:      about', 'a snapshot; the last 3 are kept'):
        assert expected in out
    assert [path.name for path in images.parent.iterdir()] == ['shapes']
    options = train.main.make_context('train.py', ['--cfg=tiny', f'--data={images}']).params
    assert starting.new_run(options['data'], None, train.Call.parsed(options).given, 'cpu')[1].run.batch == 4


@pytest.mark.parametrize('args, expected', [
    (['--cfg=stylgan2', '--data=shapes'], "'stylgan2' is not known. Did you mean 'stylegan2'?"),
    (['--data=shapes'], '--cfg is missing: --cfg=NAME --data=PATH starts a run'),
    (['--cfg=tiny'], '--data is missing'),
    (['--cfg=tiny', '--data=none.zip'], 'none.zip'),
    (['--cfg=tiny', '--data=shapes', '--batch=0'], "'--batch': 0 is not in the range"),
    (['--cfg=tiny', '--data=shapes', '--kimg=0'], "'--kimg': 0.0 is not in the range"),
    (['--cfg=tiny', '--data=shapes', '--subset=11'], 'subset 11: '),
    (['--cfg=tiny', '--data=shapes', '--device=cuda:99'], '--device=cuda:99: this machine has cpu'),
    (['--cfg=tiny', '--data=shapes', '--init-from=none.safetensors'], 'no such file: none.safetensors'),
    (['--resume=latest'], '--resume=latest: no run in training-runs: start one without --resume'),
    (['--resume=nowhere'], '--resume=nowhere: no such run folder or snapshot'),
    (['--resume=shapes'], 'shapes is not a run folder: it has no training_options.json'),
    (['--resume=shapes/00.png'], '--resume=shapes/00.png: give a run folder or its network-snapshot-*.safetensors'),
    (['--resume=latest', '--init-from=a'], '--resume goes on with a run and --init-from starts one: give one of them'),
    (['--cfg=tiny', '--data=shapes', '--freeze-d=2'], '--freeze-d=2 keeps layers of D as --init-from has them'),
    (['--cfg=tiny', '--data=shapes', '--target=0.5'], '--target=0.5 has no effect with --aug=noaug: it is for --aug=ada'),
    (['--cfg=tiny', '--data=shapes', '--aug=fixed'], '--aug=fixed needs the chance of each augmentation'),
    (['--gama=3'], 'No such option'),
])
def test_mistakes_get_one_line(images, args, expected):
    assert expected in mistake(train.main, *args)
    assert not (images.parent / 'training-runs').exists()


def test_labels_that_are_not_there(images):
    (images / 'dataset.json').unlink()
    assert 'has no labels: train without --cond' in mistake(train.main, '--cfg=tiny', f'--data={images}', '--cond')


def test_broken_image_is_named_before_the_run(images):
    (images / '04.png').write_bytes(b'not a picture')
    assert '04.png' in mistake(train.main, '--cfg=tiny', f'--data={images}')
    assert not (images.parent / 'training-runs').exists()


def test_outdir_that_cannot_be_written(images):
    (images.parent / 'file').write_text('')
    assert 'file is not a folder: choose another --outdir' in mistake(train.main, '--cfg=tiny', f'--data={images}', '--outdir=file')


def test_out_of_memory_says_what_to_lower(images, monkeypatch):
    def exhausted(*args, **kwargs):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')

    monkeypatch.setattr('training.training_loop.Training.step', exhausted)
    assert 'out of memory: lower --batch-gpu' in mistake(train.main, '--cfg=tiny', f'--data={images}')


def test_images_at_once_follow_from_memory_and_stay(images, monkeypatch):
    monkeypatch.setattr('training.memory.free_bytes', lambda device: 300 << 20)
    monkeypatch.setattr('training.memory.BASE', 209 << 20)  # leaves less than 1 MiB within the share that is used
    code, out, err = call(train.main, '--cfg=tiny', f'--data={images}', '--kimg=0.008', '--device=cpu', '--batch=16')
    assert code == 0, err
    chosen = json.loads((images.parent / 'training-runs/00000-shapes-tiny/training_options.json').read_text())['run']['batch_gpu']
    assert 1 <= chosen < 16 and f'in passes of {chosen}, 300.0 MiB free; more do not fit' in out
    monkeypatch.setattr('training.memory.free_bytes', lambda device: 300 << 30)
    code, out, err = call(train.main, '--resume=latest', '--kimg=0.032')
    assert code == 0 and f'{16 // chosen} pass(es) of {chosen}' in out, err
    monkeypatch.setattr('training.memory.free_bytes', lambda device: 1 << 20)
    assert 'one image at a time needs about ' in mistake(train.main, '--cfg=tiny', f'--data={images}')
    assert len(list((images.parent / 'training-runs').iterdir())) == 1


def test_without_inr_its_rows_are_missing(monkeypatch):
    assert {'inr', 'inr-tiny', 'stylegan2'} <= plugins.presets().keys() or not (ROOT / 'inr').exists()
    monkeypatch.delitem(sys.modules, 'inr.presets', raising=False)
    monkeypatch.setitem(sys.modules, 'inr', None)
    assert plugins.presets().keys() == PRESETS.keys() and plugins.knob_rows() == []


@pytest.mark.parametrize('number, workers', [(signal.SIGTERM, 1), (signal.SIGINT, 0)])
def test_signals_save_first(images, number, workers):
    command = ['--cfg=stylegan2-tiny', f'--data={images}', '--kimg=1000', '--tick=0.004', '--batch=4', '--device=cpu',
               f'--workers={workers}']
    child = subprocess.Popen([sys.executable, str(ROOT / 'train.py'), *command], cwd=images.parent, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, start_new_session=True)
    run = images.parent / 'training-runs' / '00000-shapes-stylegan2-tiny'
    deadline = time.monotonic() + 240
    while not (run / 'stats.jsonl').is_file() or not (run / 'stats.jsonl').read_text():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(child.pid, number)
    out, err = child.communicate(timeout=240)
    assert child.returncode == 128 + number and err == ''
    last = run_folder.find_resumable(run)
    assert f'\n{number.name}: stops after this step, with a snapshot' in out
    assert f'Stopped by {number.name} at' in out and str(last.name) in out
    assert out.rstrip().endswith('Go on with: python train.py --resume=training-runs/00000-shapes-stylegan2-tiny')
    total = checkpoint.read_header(last)['images'] + 4
    code, out, err = call(train.main, '--resume=latest', f'--kimg={total / 1000}', '--workers=0')
    assert code == 0 and run_folder.find_resumable(run) == checkpoint.network_path(run, total), err


ANSWER = 'SIGINT: stops after this step, with a snapshot; a second one ends at once, without\n'


def test_second_signal_ends_at_once():
    code = ('import os, signal\nfrom training.clock import StopSignal\n'
            'with StopSignal():\n    os.kill(os.getpid(), signal.SIGINT)\n    print("first", flush=True)\n'
            '    os.kill(os.getpid(), signal.SIGINT)\n    print("second", flush=True)')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, ANSWER + 'first\n')
