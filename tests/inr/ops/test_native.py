"""How the compiled CPU code is built, kept and found again."""

import os
import shutil
from pathlib import Path

import pytest

from inr.ops import native
from tests.helpers import needs_compiled_code

needs_compiled_code(allow_module_level=True)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No remembered library, none of the user's settings."""
    for name in ('TORCH_EXTENSIONS_DIR', 'XDG_CACHE_HOME', 'CXX'):
        monkeypatch.delenv(name, raising=False)
    native._library.cache_clear()
    yield
    native._library.cache_clear()


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A program of one line in place of the sources, an empty cache."""
    source = tmp_path / 'one.cpp'
    source.write_text('extern "C" { long long fmm_channels_step() { return 4; } }')
    monkeypatch.setattr(native, 'SOURCES', (source,))
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path / 'cache'))


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert native._cache_folder() == tmp_path / '.cache' / 'torch_extensions'
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert native._cache_folder() == tmp_path / 'xdg' / 'torch_extensions'
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path / 'own'))
    assert native._cache_folder() == tmp_path / 'own'


def test_without_a_home_auto_goes_on_with_a_warning(monkeypatch):
    import torch

    from inr.ops import dispatch

    def none():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(Path, 'home', none)
    with pytest.raises(native.Unavailable, match='no home directory .*set TORCH_EXTENSIONS_DIR'):
        native.library()
    dispatch._warn.cache_clear()
    with pytest.warns(UserWarning, match='no home directory'):
        assert dispatch.layer(torch.ones(1, 2, 3), x=torch.ones(1, 3, 1, 1)).shape == (1, 2, 1, 1)


def test_a_compiler_of_two_words(quick, monkeypatch, tmp_path):
    wrapper = tmp_path / 'ccache'
    wrapper.write_text(f'#!/bin/sh\ntouch {tmp_path}/called\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv('CXX', f'{wrapper} {native._compiler()[0]}')
    assert native.build().exists() and (tmp_path / 'called').exists()
    monkeypatch.setenv('CXX', f'{wrapper} no-such-compiler')
    with pytest.raises(native.Unavailable, match='ccache no-such-compiler'):
        native.build()


def test_another_compiler_or_library_is_another_build(quick, monkeypatch, tmp_path):
    compiler = tmp_path / 'c++'
    compiler.write_text(f'#!/bin/sh\nexec {shutil.which(native._compiler()[0])} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv('CXX', str(compiler))
    first = native.build()
    assert native.build() == first
    os.utime(compiler, (1, 1))
    second = native.build()
    monkeypatch.setattr(native.platform, 'libc_ver', lambda: ('glibc', '9.9'))
    monkeypatch.setenv('INR_OPS_ASAN', '')
    assert len({first, second, native.build()}) == 3


def test_a_file_that_cannot_be_loaded_is_built_once_more(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path))
    monkeypatch.setattr(native, 'FLAGS', ('-O0', *native.FLAGS[1:]))  # builds in a second
    path = native.build()
    path.write_bytes(path.read_bytes()[:100])
    assert native.library().fmm_channels_step() > 0 and path.stat().st_size > 100


@pytest.mark.skipif(not hasattr(os, 'getuid'), reason='a system without owners')
def test_code_that_others_may_write_is_not_run(quick, monkeypatch):
    before = os.umask(0o002)
    try:
        path = native.build()
    finally:
        os.umask(before)
    assert native.build() == path  # its own are private, whatever the umask
    for place in (path, path.parent):
        place.chmod(0o722)
        with pytest.raises(native.Unavailable, match='others may write there'):
            native.build()
        place.chmod(0o700)
    monkeypatch.setattr(os, 'getuid', lambda: path.stat().st_uid + 1)
    with pytest.raises(native.Unavailable, match='another user'):
        native.build()
