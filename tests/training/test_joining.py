"""What processes settle before a run: facts, digests of code and weights, the run of a job that torchrun starts again."""

import dataclasses
import os

import torch

from tests.training.tiny import ROW
from training import config, joining

DATA = config.DataConfig('x.zip', 'abc', 16, 3, 10, 0, None, False, None)


def test_facts_name_options_data_packages_and_code():
    facts = joining.facts(config.build('tiny', ROW, DATA))
    assert facts['data digest'] == 'abc' and facts['run.batch'] == 4
    assert facts['torch'] == torch.__version__ and len(facts['the code']) == 16
    copied = joining.facts(config.build('tiny', ROW, dataclasses.replace(DATA, path='/local/x.zip'), workers=3))
    assert copied == facts
    other = joining.facts(config.build('tiny', ROW, DATA, gamma=7))
    assert {name for name in facts if facts[name] != other[name]} == {'loss.gamma'}


def test_the_digest_of_the_code_is_of_names_and_content(tmp_path):
    for folder in joining.CODE:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'a.py').write_text('x = 1')
    digests = [joining.code_digest(tmp_path)]
    (tmp_path / 'inr' / 'a.py').write_text('x = 2')
    digests.append(joining.code_digest(tmp_path))
    (tmp_path / 'inr' / 'a.py').rename(tmp_path / 'inr' / 'b.py')
    digests.append(joining.code_digest(tmp_path))
    (tmp_path / 'inr' / 'notes.txt').touch()
    assert len(set(digests)) == 3 and joining.code_digest(tmp_path) == digests[2]


def test_the_digest_of_weights_sees_one_bit():
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    digest = joining.weights_digest(network)
    assert joining.weights_digest(network) == digest
    network[0].bias.data.view(torch.int32)[1] ^= 1
    assert joining.weights_digest(network) != digest


def test_a_job_finds_its_run_again(tmp_path, monkeypatch):
    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    joining.remember_run(tmp_path, tmp_path / 'a')
    assert joining.run_of_job(tmp_path) is None and not list(tmp_path.iterdir())  # not of torchrun
    (tmp_path / '00000-x').mkdir()
    options = tmp_path / '00000-x' / 'training_options.json'
    options.touch()
    for name in ('some-id', 'none'):
        monkeypatch.setenv('TORCHELASTIC_RUN_ID', name)
        assert joining.run_of_job(tmp_path) is None
        joining.remember_run(tmp_path, tmp_path / '00000-x')
        assert joining.run_of_job(tmp_path) == tmp_path / '00000-x'
    monkeypatch.setattr('os.getppid', os.getpid)  # another torchrun
    assert joining.run_of_job(tmp_path) is None
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'some-id')
    assert joining.run_of_job(tmp_path) == tmp_path / '00000-x'
    options.unlink()  # it ended before there was anything to go on with
    assert joining.run_of_job(tmp_path) is None
