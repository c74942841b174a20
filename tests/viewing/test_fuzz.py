"""What script/fuzz_viewer.py sends, some of it: no answer is a mistake of the server's, and it goes on as before."""

import gc

import requests

from tests import tiny_snapshots
from tests.helpers import script
from tests.viewing.serving import served, tiny, until


def test_strange_requests(tmp_path, capfd, caplog):
    fuzzer, network = script('fuzz_viewer'), tiny_snapshots.save(tmp_path / 'a.safetensors', tiny())
    with served(network) as (address, interface, _):
        host, port = address.removeprefix('http://').split(':')
        before = requests.get(f'{address}/tile/4/8/8?seed=3').content
        statuses = fuzzer.fuzz(host, int(port), 250, seed=1)
        assert requests.get(f'{address}/tile/4/8/8?seed=3').content == before
        until(lambda: interface.waiting == 0 and not interface.saving.locked())  # who hung up last is noticed a little later
    assert fuzzer.bad(statuses) == {} and statuses['200'] > 20 and statuses['400'] > 20 and statuses['403'] > 5, statuses
    gc.collect()
    assert 'Traceback' not in ''.join(capfd.readouterr()) and caplog.text == ''


def test_what_is_bad():
    fuzzer = script('fuzz_viewer')
    assert fuzzer.bad({'200': 5, '404': 1, '503': 2, 'none': 1, 'left': 1}) == {} and fuzzer.bad({'500': 1, '200': 1}) == {'500': 1}
