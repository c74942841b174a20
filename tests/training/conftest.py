"""What tests of runs begin with: tiny sets of images, and a place for run folders."""

import pytest

from tests.training.tiny import make_images


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('data') / 'images')


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('data') / 'labelled', classes=3)


@pytest.fixture
def folder(tmp_path):
    """A function that makes run folders below `folder.root`."""
    def make(name):
        (tmp_path / name).mkdir()
        return tmp_path / name

    make.root = tmp_path
    return make
