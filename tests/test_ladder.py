"""script/ladder.py: its table by known answers, its marks in a document, and a rung trained, scored and left alone the second time."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import ROOT, script
from tests.tiny_snapshots import call, mistake

pytest.importorskip('inr')


@pytest.fixture(scope='module')
def ladder():
    return script('ladder')


def test_rungs_are_those_of_the_paper_and_of_train(ladder):
    from inr.decoders import DECODERS
    from inr.presets import PRESETS

    assert ladder.RUNGS == (*DECODERS, 'stylegan2') and set(ladder.NAMES) == set(ladder.PAPER) == {*ladder.RUNGS, 'real'}
    assert all(budget.cfg in PRESETS and set(budget.kimg) == set(ladder.SETS) for budget in ladder.BUDGETS.values())


def test_table_and_order(ladder):
    scores = {'fmm': dict(fd=20.0, kd=3.0, kd_std=0.1, parameters=2_500_000, minutes=3.25, cs=4.5, accuracy=0.5),
              'basic': dict(fd=200.0, kd=30.0, kd_std=0.5, parameters=100_000, minutes=2.0, cs=1.5, accuracy=0.25),
              'real': dict(fd=1.0, kd=0.0, kd_std=0.1, cs=9.0, accuracy=0.93)}
    assert ladder.order(scores) == ['basic', 'fmm']
    text = ladder.table('fashion', scores, 'about it')
    assert '| + FMM | 20.0 | 3.0 +- 0.1 | 4.50 | 0.50 | 2.50 M | 3.2 | 23.78 / 2.48, 84.66 / 9.32 |' in text
    assert 'here: basic, fmm; in the paper: basic, hyper, fourier, fmm, multiscale, stylegan2.' in text


def test_sections_are_replaced_in_place(ladder, tmp_path):
    path = tmp_path / 'results.md'
    path.write_text('# Results\n\nbefore\n')
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / f'{name}.png').write_bytes(name.encode())
    ladder.write_results(path, {'a': 'one\n', 'b': 'two\n'}, tmp_path)
    path.write_text(path.read_text() + '\nafter\n')
    ladder.write_results(path, {'a': 'three\n'}, tmp_path)
    assert (tmp_path / 'ladder-b.png').read_text() == 'b' and '(ladder-a.png)' in path.read_text()
    text = path.read_text()
    assert 'one' not in text and text.index('before') < text.index('three') < text.index('two') < text.index('after')
    assert text.count('<!-- ladder a -->') == text.count('<!-- end of ladder b -->') == 1


def test_classifier_learns_what_tells_classes_apart(ladder, tmp_path):
    class Halves(torch.utils.data.Dataset):
        num_channels, label_dim = 1, 2

        def __len__(self):
            return 512

        def __getitem__(self, i):
            image = np.random.RandomState(i).randint(0, 60, [1, 32, 32]).astype(np.uint8)
            image[:, :, 16 * (i % 2):16 * (i % 2) + 16] += 150
            return image, np.eye(2, dtype=np.float32)[i % 2]

    data, path, scores = Halves(), tmp_path / 'classifier.pt', ladder.ladder_scores
    network = scores.train_classifier(data, path, 'cpu', batch=32)
    images = torch.from_numpy(np.stack([data[i][0] for i in range(64)]))
    probs = scores.probabilities(network, images, 'cpu')
    assert (probs.argmax(dim=1) == torch.arange(64) % 2).float().mean() > 0.95 and torch.allclose(probs.sum(dim=1), torch.ones(64))
    again = scores.train_classifier(data, path, 'cpu')  # read, not trained
    assert torch.equal(scores.probabilities(again, images, 'cpu'), probs)


def test_a_rung_is_trained_scored_and_left_alone_the_second_time(ladder, tmp_path, monkeypatch):
    source = tmp_path / 'emoji'
    source.mkdir()
    for i in range(40):
        Image.fromarray(np.random.RandomState(i).randint(0, 256, [64, 64, 3], np.uint8)).save(source / f'{i:02d}.png')
    monkeypatch.setattr(ladder, 'ROOT', ROOT)
    results = tmp_path / 'results.md'
    results.write_text('# Results\n')
    args = ['--sets=emoji', '--rungs=basic', f'--emoji={source}', f'--outdir={tmp_path}/ladder', '--kimg=0.016', '--num=32', '--device=cpu',
            f'--results={results}']
    code, out, err = call(ladder.main, *args)
    assert code == 0, err
    found = json.loads((tmp_path / 'ladder/emoji/scores.json').read_text())
    assert found['scores']['basic']['kimg'] == 0.016 and found['scores']['basic']['fd'] > 0 and found['budget']['cfg'] == 'paper-tiny'
    with Image.open(tmp_path / 'ladder/emoji/emoji.png') as sheet:
        assert sheet.size == (16 * 64, 2 * 64)  # the rung, and real images
    assert 'Basic INR decoder' in results.read_text()
    runs = list((tmp_path / 'ladder/emoji/basic').glob('0*'))
    code, out, err = call(ladder.main, *args)
    assert code == 0 and list((tmp_path / 'ladder/emoji/basic').glob('0*')) == runs == [runs[0]], err


@pytest.mark.parametrize('args, expected', [
    (['--rungs=basick'], "--rungs: 'basick' is not known. Known: basic, hyper"), (['--sets=mnist'], "--sets: 'mnist' is not known"),
    (['--sets=fashion', '--fashion=nowhere'], 'nowhere is not there. Fashion-MNIST: apt-get install dataset-fashion-mnist'),
])
def test_mistakes_get_one_line(ladder, tmp_path, args, expected):
    assert expected in mistake(ladder.main, *args, f'--outdir={tmp_path}/ladder')
