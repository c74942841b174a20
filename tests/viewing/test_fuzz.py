"""What script/fuzz_viewer.py sends, some of it: no answer is a mistake of the server's, and it goes on as before."""

import gc
import importlib.util

import requests

from tests import tiny_snapshots
from tests.helpers import ROOT
from tests.viewing.serving import served, tiny, until


def fuzz_viewer():
    spec = importlib.util.spec_from_file_location('fuzz_viewer', ROOT / 'script' / 'fuzz_viewer.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_strange_requests(tmp_path, capfd, caplog):
    script, network = fuzz_viewer(), tiny_snapshots.save(tmp_path / 'a.safetensors', tiny())
    with served(network) as (address, interface, _):
        host, port = address.removeprefix('http://').split(':')
        before = requests.get(f'{address}/tile/4/8/8?seed=3').content
        statuses = script.fuzz(host, int(port), 250, seed=1)
        assert requests.get(f'{address}/tile/4/8/8?seed=3').content == before
        until(lambda: interface.waiting == 0 and not interface.saving.locked())  # who hung up last is noticed a little later
    assert script.bad(statuses) == {} and statuses['200'] > 20 and statuses['400'] > 20 and statuses['403'] > 5, statuses
    gc.collect()
    assert 'Traceback' not in ''.join(capfd.readouterr()) and caplog.text == ''


def test_what_is_bad():
    script = fuzz_viewer()
    assert script.bad({'200': 5, '404': 1, '503': 2, 'none': 1, 'left': 1}) == {} and script.bad({'500': 1, '200': 1}) == {'500': 1}
