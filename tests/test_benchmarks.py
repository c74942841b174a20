"""The benchmarks run alone and write what they promise; what they compare agrees."""

import json
import subprocess
import sys

import pytest

from tests.helpers import ROOT

KEYS = {'case', 'baseline_s', 'fast_s', 'ratio', 'rel_err', 'peak_mib'}


@pytest.mark.parametrize('script, options, errors', [
    ('bench_generator', ['--case=inr,32,2,float32', '--case=paper,32,1,float32'], 1e-5),
    ('bench_generator', ['--case=inr-bil,32,1,bfloat16'], 0.1),
    ('bench_generator', ['--case=stylegan2,16,3,float32'], 1e-5),
    ('bench_train_step', ['--res=16', '--batch=4'], 0.3),
    ('bench_ops', [], 0.02),
])
def test_figures(script, options, errors, tmp_path):
    command = [sys.executable, f'benchmarks/{script}.py', '--repeats=1', f'--json={tmp_path}/figures.json', *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / 'figures.json').read_text())
    assert len(figures) > 0 and 'commit' in done.stdout
    for figure in figures:
        assert figure.keys() == KEYS and figure['case'] in done.stdout
        assert figure['ratio'] == figure['baseline_s'] / figure['fast_s'] > 0 and 0 <= figure['rel_err'] < errors


def test_profile(tmp_path):
    command = [sys.executable, 'benchmarks/profile_step.py', '--res=16', '--batch=4', f'--json={tmp_path}/profile.json']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'profile.json').read_text()).keys() == {'G', 'D', 'D_reg'} and 'images/s' in done.stdout
