"""The benchmarks run alone and write what they promise; what they compare agrees."""

import importlib
import json
import subprocess
import sys

import pytest
import torch

from tests.helpers import ROOT
from training import memory

pytest.importorskip('inr')  # what they measure

KEYS = {'case', 'baseline_s', 'fast_s', 'ratio', 'rel_err', 'peak_mib'}


@pytest.mark.parametrize('script, options, errors', [
    ('bench_generator', ['--repeats=1', *(f'--case={case},float32' for case in ('inr-bil,32,2', 'paper,32,1', 'stylegan2,16,3'))], 1e-5),
    ('bench_render', ['--network=assets/emoji.safetensors', '--sizes=16,64'], 1e-5),
    ('bench_fmm', ['--repeats=1', '--case=24,16,8,64,2', '--case=5,7,0,9,1'], 0.2),
    ('bench_augment', ['--repeats=1', '--res=16', '--batch=2', '--steps=1', '--pipe=bgcfnc', '--p=0.5'], 1e-9),
])
def test_figures(script, options, errors, tmp_path):
    command = [sys.executable, f'benchmarks/{script}.py', f'--json={tmp_path}/figures.json', *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / 'figures.json').read_text())
    assert len(figures) > 0 and 'commit' in done.stdout
    for figure in figures:
        assert figure.keys() == KEYS and figure['case'] in done.stdout
        assert figure['ratio'] == figure['baseline_s'] / figure['fast_s'] > 0 and 0 <= figure['rel_err'] < errors


@pytest.mark.parametrize('command, message', [
    ('bench_generator.py --case=inrr,256,1,float32', 'preset is one of inr, inr-bil'),
    ('bench_generator.py --case=inr,256', 'give preset,res,'),
    ('bench_fmm.py --case=a,1,1,1,1', 'rows is a number'), ('bench_fmm.py --device=cuda', 'this PyTorch can use no GPU'),
    ('gpu_check.py --outdir=nowhere', 'there is no GPU'),
])  # fmt: skip
@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_mistakes_are_one_line(command, message, tmp_path):
    script, option = command.split()
    done = subprocess.run([sys.executable, ROOT / 'benchmarks' / script, option], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr.strip().splitlines()[-1] and 'Traceback' not in done.stderr


def test_gpu_check_runs_dry(tmp_path):
    command = [sys.executable, 'benchmarks/gpu_check.py', '--dry', f'--outdir={tmp_path}/new/folder']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = json.loads((tmp_path / 'new' / 'folder' / 'gpu_check.json').read_text())
    assert done.returncode == 0 and 'failed: none' in done.stdout, (done.stderr, found)
    assert len(found) == 14 and found['operators']['cases'] == 8 and found['training']['loss_D'][-1] < found['training']['loss_D'][0]
    for name in ('training', 'two_processes'):
        assert 0.2 < found[name]['peak_over_estimate'] < 5 and len(found[name]['loss_D']) >= 4
    for name, cases, errors in (('generator', 1, 0.1), ('step', 8, 0.3), ('layer', 2, 0.2), ('layer_in_full', 2, 1e-5), ('ops', 8, 0.02)):
        figures = found[name]['figures']
        assert len(figures) == cases and all(figure.keys() == KEYS and 0 <= figure['rel_err'] < errors for figure in figures)


def test_a_peak_beyond_the_estimate_is_a_failure(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    check = importlib.import_module('gpu_check')
    text = 'x\nmemory:      about 2.0 GiB besides PyTorch itself in passes of 16, 9.0 GiB free\n'
    found = check.against_estimate(2 * 2**30, text, dry=False)
    assert found == {'peak_bytes': 2**31, 'estimated_bytes': 2**31, 'peak_over_estimate': 1} and check.SHARE == memory.SHARE
    with pytest.raises(RuntimeError, match='took 3.00 GiB, the estimate is 2.00'):
        check.against_estimate(3 * 2**30, text, dry=False)
    assert check.against_estimate(3 * 2**30, text, dry=True)['peak_over_estimate'] == 1.5


BROKEN = """
import importlib
import sys
sys.path[:0] = ['benchmarks', '.']
check_operators = importlib.import_module('check_operators')
import torch_utils.ops.upfirdn2d as ops
from inr.ops import layer_cpu
upfirdn2d, backward = ops.upfirdn2d, layer_cpu.backward
ops.upfirdn2d = lambda *args, impl, **more: upfirdn2d(*args, impl=impl, **more) * (1 if impl == 'ref' else 1.02)
layer_cpu.backward = lambda *args: tuple(part * 1.02 for part in backward(*args))
check_operators.main()
"""


def test_operators_that_are_off_are_found(tmp_path):
    """Results of one operator and derivatives of another that are 2% too large."""
    command = [sys.executable, '-c', BROKEN, '--device=cpu', '--small', f'--json={tmp_path}/found.json']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    bad = {case['case'].split()[0] for case in json.loads((tmp_path / 'found.json').read_text()) if not case['ok']}
    assert bad == {'upfirdn2d', 'fmm'}


def test_profile(tmp_path):
    command = [sys.executable, 'benchmarks/profile_step.py', '--res=16', '--batch=4', f'--json={tmp_path}/profile.json']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'profile.json').read_text()).keys() == {'G', 'D', 'D_reg'} and 'images/s' in done.stdout
