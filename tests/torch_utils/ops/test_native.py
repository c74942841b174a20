"""Tests of how the CUDA operators are found, built and chosen; stand-ins take the place of the GPU and, but for one test, of nvcc."""

import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from dnnlib.cli import explain
from tests.helpers import ROOT
from torch_utils.ops import native, upfirdn2d
from torch_utils.ops.bias_act import activation_funcs, bias_act

ARCHS = ('75', '80', '86', '89', '90')
NVCC = """#!/bin/sh
# Stands in for nvcc: counts its calls, writes what it is told to.
if [ "$1" = --version ]; then echo "release {version}"; exit 0; fi
echo "$@" >> "{folder}/calls"
echo "what nvcc says"
while [ "$1" != -o ]; do shift; done
sleep {seconds}
echo library > "$2"
exit {code}
"""


class OnGpu:
    """As much of a CUDA tensor as the choice of an implementation looks at."""

    is_cuda, dtype, device = True, torch.float32, torch.device('cuda:0')


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """No remembered answers, an empty cache, none of the user's settings."""
    for name in ('CUDA_HOME', 'CUDA_PATH', 'TORCH_CUDA_ARCH_LIST', 'CXX', 'NVCC_CCBIN', 'INR_OPS_IMPL'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path / 'cache'))
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device=None: (8, 6))
    remembered = (native.library, native._available)
    for function in remembered:
        function.cache_clear()
    yield
    for function in remembered:
        function.cache_clear()


@pytest.fixture
def nvcc(tmp_path, monkeypatch):
    """A function that puts a stand-in for nvcc in place."""
    def install(version='13.0', code=0, seconds=0):
        program = tmp_path / 'toolkit' / 'bin' / 'nvcc'
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(NVCC.format(version=version, code=code, seconds=seconds, folder=tmp_path))
        program.chmod(0o755)
        compiler = tmp_path / 'toolkit' / 'bin' / 'g++'
        compiler.write_text('#!/bin/sh\n')
        compiler.chmod(0o755)
        monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'toolkit'))
        monkeypatch.setenv('CXX', str(compiler))

    install.calls = lambda: (tmp_path / 'calls').read_text().splitlines() if (tmp_path / 'calls').exists() else []
    return install


def one_line(err):
    """The error's text, which a command would print as it is."""
    assert isinstance(err, RuntimeError) and explain(err) == str(err) and '\n' not in str(err)
    return str(err)


# ---- The real compiler


@pytest.mark.skipif(shutil.which('nvcc') is None or shutil.which('g++') is None, reason='nvcc or g++ is missing')
@pytest.mark.parametrize('source', native.SOURCES, ids=lambda source: source.name)
def test_sources_compile_for_every_architecture(source, tmp_path):
    quick = ['-fatbin', '-Xcicc', '-O1', '-Xptxas', '-O1', '--threads', '2', '-std=c++17']
    done = subprocess.run(['nvcc', *quick, *native.gencode(ARCHS), '-o', tmp_path / 'out', source], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / 'out').stat().st_size > 10_000


def test_sources_know_no_torch_and_name_what_python_names():
    texts = {path.stem: path.read_text() for path in (*native.SOURCES, native.HEADER)}
    assert set(re.findall(r'#include [<"]([\w.]+)', ' '.join(texts.values()))) <= {
        'portable.cuh', 'math.h', 'stdint.h', 'string.h', 'cuda_runtime.h', 'cuda_fp16.h', 'cuda_bf16.h'}
    acts = re.search(r'enum Act \{ (.*) \}', texts['bias_act'])[1].lower().split(', ')
    assert acts == list(activation_funcs)
    cases = re.findall(r'case (\d): return run.template with<(\w+)>', texts['portable'])
    assert cases == [('0', 'float'), ('1', 'float16'), ('2', 'bfloat16'), ('3', 'double')]
    assert native.DTYPES == (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    for name, argtypes in native.SIGNATURES.items():
        arguments = re.search(rf'extern "C" int {name}\((.*?)\)', texts[name], re.S)[1].split(',')
        assert len(arguments) == len(argtypes)
        for argument, kind in zip(arguments, argtypes, strict=True):
            assert ('*' in argument) == (kind not in (native._int, native._long, native._real)), argument


# ---- Building


def test_built_once_and_again_when_something_changes(nvcc, monkeypatch, tmp_path):
    nvcc()
    path = native.build(('86',))
    assert path.read_text() == 'library\n' and path.parent.parent == tmp_path / 'cache'
    assert native.build(('86',)) == path and len(nvcc.calls()) == 1
    assert 'compute_86,code=sm_86' in nvcc.calls()[0] and all(str(source) in nvcc.calls()[0] for source in native.SOURCES)
    others = {native.build(('80', '90'))}
    header = tmp_path / 'portable.cuh'
    header.write_text('// changed')
    monkeypatch.setattr(native, 'HEADER', header)
    others.add(native.build(('86',)))
    nvcc(version='13.1')
    others.add(native.build(('86',)))
    assert len(others | {path}) == len(nvcc.calls()) == 4


def test_processes_that_start_together_build_once(nvcc):
    nvcc(seconds=0.5)
    code = "from torch_utils.ops import native; print(native.build(('86',)).read_text())"
    started = [subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in started] == ['library'] * 2
    assert len(nvcc.calls()) == 1


def test_a_failed_build_names_its_log_and_leaves_no_library(nvcc, tmp_path):
    nvcc(code=1)
    with pytest.raises(native.NativeError, match='could not compile') as caught:
        native.build(('86',))
    log = re.search(r'/\S+nvcc.log', one_line(caught.value))[0]
    assert 'what nvcc says' in Path(log).read_text()
    assert sorted(path.name for path in Path(log).parent.iterdir()) == ['lock', 'nvcc.log']
    nvcc()
    assert native.build(('86',)).exists()


def test_missing_tools_are_named(nvcc, monkeypatch, tmp_path):
    nvcc()
    monkeypatch.setenv('CXX', '/nowhere/g++')
    with pytest.raises(native.NativeError, match='C[+][+] compiler /nowhere/g[+][+] is missing') as caught:
        native.build(('86',))
    one_line(caught.value)
    monkeypatch.setenv('CUDA_HOME', '/nowhere')
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    with pytest.raises(native.NativeError, match='nvcc is missing: install') as caught:
        native.build(('86',))
    one_line(caught.value)


def test_a_cache_that_cannot_be_written_is_named(nvcc, monkeypatch, tmp_path):
    nvcc()
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path / 'file'))
    with pytest.raises(native.NativeError, match='cannot be kept in .*set TORCH_EXTENSIONS_DIR') as caught:
        native.build(('86',))
    one_line(caught.value)


def test_a_library_that_does_not_load_is_named(nvcc):
    nvcc()  # what it writes is no library
    with pytest.raises(native.NativeError, match='cannot be loaded .*remove its folder') as caught:
        native.library(OnGpu.device)
    one_line(caught.value)


def test_the_cache_needs_a_home_or_a_name_and_an_owner(nvcc, monkeypatch):
    nvcc()
    monkeypatch.setenv('CXX', f'ccache {shutil.which("true")}')  # nvcc takes the compiler alone
    path = native.build(('86',))
    assert shutil.which('true') in nvcc.calls()[0] and native.build(('86',)) == path
    path.chmod(0o722)
    with pytest.raises(native.NativeError, match='others may write there') as caught:
        native.build(('86',))
    one_line(caught.value)
    monkeypatch.delenv('TORCH_EXTENSIONS_DIR')
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)

    def none():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(Path, 'home', none)
    with pytest.raises(native.NativeError, match='no home directory .*set TORCH_EXTENSIONS_DIR'):
        native.build(('86',))


def test_architectures(monkeypatch):
    assert native.architectures(OnGpu.device) == ('86',)
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', '8.0;9.0a 10.0+PTX')
    assert native.architectures(None) == ('80', '90a', '100')
    assert native.gencode(('80', '90'))[-1] == '-gencode=arch=compute_90,code=compute_90'
    monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', 'Ampere')
    with pytest.raises(native.NativeError, match="TORCH_CUDA_ARCH_LIST='Ampere' is not a list of numbers"):
        native.architectures(None)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv('TORCH_EXTENSIONS_DIR')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert native.cache_folder() == tmp_path / 'torch_extensions'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert native.cache_folder() == Path.home() / '.cache' / 'torch_extensions'


# ---- Choosing


def test_forced_on_a_cpu_is_one_line():
    x = torch.ones(1, 1, 2, 2)
    for run in (lambda: bias_act(x, impl='cuda'), lambda: upfirdn2d.upfirdn2d(x, None, impl='cuda')):
        with pytest.raises(RuntimeError, match='needs a tensor on a CUDA device, this one is on cpu') as caught:
            run()
        one_line(caught.value)


def test_forced_without_the_library_is_one_line(monkeypatch):
    monkeypatch.setattr(native, 'build', no_library)
    for _ in range(2):
        with pytest.raises(native.NativeError, match='^no nvcc here$'):
            native.compiled('cuda', OnGpu)


def no_library(archs):
    raise native.NativeError('no nvcc here')


def test_auto_warns_once_and_stays_with_ref(monkeypatch):
    monkeypatch.setattr(native, 'build', no_library)
    with pytest.warns(UserWarning, match='plain PyTorch is, which is slower: no nvcc here$') as warned:
        assert [native.compiled('auto', OnGpu) for _ in range(3)] == [False] * 3
    assert len(warned) == 1


def test_auto_takes_the_library_where_it_is(monkeypatch):
    monkeypatch.setattr(native, 'library', lambda device: None)
    assert native.compiled('auto', OnGpu) and native.compiled('cuda', OnGpu) and not native.compiled('ref', OnGpu)


def test_dtypes_without_a_kernel(monkeypatch):
    monkeypatch.setattr(OnGpu, 'dtype', torch.complex64)
    assert not native.compiled('auto', OnGpu)
    with pytest.raises(native.NativeError, match='not torch.complex64'):
        native.compiled('cuda', OnGpu)


def test_auto_on_a_cpu_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert not native.compiled('auto', torch.ones(1))


def test_environment_says_what_auto_means(monkeypatch):
    monkeypatch.setattr(native, 'build', no_library)
    monkeypatch.setenv('INR_OPS_IMPL', 'ref')
    assert not native.compiled('auto', OnGpu)
    monkeypatch.setenv('INR_OPS_IMPL', 'cuda')
    with pytest.raises(native.NativeError, match='^no nvcc here$'):
        native.compiled('auto', OnGpu)
    monkeypatch.setenv('INR_OPS_IMPL', 'fast')
    with pytest.raises(ValueError, match="impl='fast' is not known"):
        native.compiled('auto', OnGpu)
