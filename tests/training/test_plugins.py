"""Networks by name: what a file may name, and what it may not."""

import pytest

from dnnlib.util import UserError
from training import plugins
from training.networks import Discriminator, Generator


def test_networks_of_this_project_are_found():
    assert plugins.network_class('training.networks.Generator', 'a') is Generator
    assert plugins.network_class('training.networks.Discriminator', 'a') is Discriminator
    found = pytest.importorskip('inr.hypernetwork').Generator
    assert plugins.network_class('inr.hypernetwork.Generator', 'a') is found


@pytest.mark.parametrize('name', [
    'inr_b.generator.Generator', 'x.inr.generator.Generator', 'xinr.generator.Generator',  # other folders
    'inr.Generator', 'inr.generator.Generator.forward', 'inr.Upper.Generator', 'inr..generator.Generator',  # no module below inr
    'inr.generator.not an identifier', 'inr.generator.', 'training.networks_b.Generator', 'training.layers.FullyConnectedLayer',
    'Generator', '.Generator',
])
def test_names_of_other_places_are_refused_unseen(name, monkeypatch):
    monkeypatch.setattr(plugins.importlib, 'import_module', None)  # nothing is imported on their word
    with pytest.raises(UserError, match='the file names another class'):
        plugins.network_class(name, 'the file')


@pytest.mark.parametrize('name', [
    'training.networks.SynthesisLayer', 'training.networks.FullyConnectedLayer',  # imports of a module are not its networks
    'training.networks.nn', 'training.networks.normalize_2nd_moment', 'training.networks.NoSuch',
])
def test_what_is_no_network_of_its_module_is_refused(name):
    with pytest.raises(UserError, match='the file names another class'):
        plugins.network_class(name, 'the file')
