"""The rules of who may import whom, read from the sources, imports inside functions included."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

LAYERS = {  # folder: the folders of this repository that it may import
    'dnnlib': {'dnnlib'},
    'torch_utils': {'dnnlib', 'torch_utils'},
    'training': {'dnnlib', 'torch_utils', 'training'},
    'inr': {'inr'},  # and INR_HOST
    'inference': {'dnnlib', 'torch_utils', 'training', 'inr', 'inference'},
    'metrics': {'dnnlib', 'torch_utils', 'training', 'inference', 'metrics'},
    'figures': {'dnnlib', 'torch_utils', 'training', 'inr', 'inference', 'metrics', 'figures'},
    'viewing': {'dnnlib', 'torch_utils', 'training', 'inference', 'viewing'},
}
DATA = Path('training/data')  # what needs no GAN and no torch: imports dnnlib and itself
PAINTER = (Path('inference/painter.py'), Path('inference/__init__.py'))  # ask whether there is an inr/; the others ask them
INR_HOST = {
    'training.networks': {'MappingNetwork', 'FullyConnectedLayer'},
    'torch_utils.ops': {'bias_act', 'upfirdn2d', 'conv2d_resample'},
}
HOST_CALLS = {'bias_act', 'upfirdn2d', 'upsample2d', 'downsample2d', 'filter2d', 'conv2d_resample'}  # not with impl= in inr/
COMMANDS = {'train', 'generate', 'walk', 'projector', 'dataset_tool', 'calc_metrics', 'analyze', 'viewer'}
NOBODY_IMPORTS = COMMANDS | {'tests', 'benchmarks', 'script'}
OURS = set(LAYERS) | NOBODY_IMPORTS
LENGTH = 350  # lines of a file, and of a networks.py; soft: a tenth more passes
LENGTH_NETWORKS = 450

SOURCES = sorted(
    path.relative_to(ROOT) for place in (*LAYERS, 'script', 'benchmarks', '.')
    for path in (ROOT / place).glob('*.py' if place == '.' else '**/*.py')
)


def imports(tree, package):
    """(line, module, name) of every import in a syntax tree; name is None for 'import module'.

    package: dotted package the file is in, for relative imports
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split('.')[:len(package.split('.')) - node.level + 1] if node.level else []
            module = '.'.join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            if called(node) in ('import_module', '__import__', 'optional'):
                yield node.lineno, node.args[0].value, None
            elif called(node) in ('get_obj_by_name', 'construct_class_by_name', 'call_func_by_name'):
                module, _, name = node.args[0].value.rpartition('.')
                yield node.lineno, module, name
        elif isinstance(node, ast.Call) and called(node) == 'construct_class_by_name':
            for keyword in node.keywords:
                if keyword.arg == 'class_name' and isinstance(keyword.value, ast.Constant):
                    yield node.lineno, *keyword.value.value.rpartition('.')[::2]


def called(node):
    """The last part of what a call calls: 'f' for f(), a.f() and a.b.f()."""
    return getattr(node.func, 'attr', getattr(node.func, 'id', None))


def violations(source, path):
    """What a file breaks: a list of 'path:line: reason'. path: relative to the repository's root."""
    path = Path(path)
    layer = path.parts[0] if len(path.parts) > 1 else None
    tree = ast.parse(source)
    found = []
    for line, module, name in imports(tree, '.'.join(path.parent.parts)):
        top = module.split('.')[0]
        reason = None
        if top in NOBODY_IMPORTS:
            reason = f'nothing imports {top}'
        elif layer == 'inr' and top in OURS - {'inr'}:
            if name not in INR_HOST.get(module, ()):
                reason = f'inr may not take {name or module} from {module}'
        elif layer in LAYERS and top in OURS - LAYERS[layer]:
            reason = f'{layer} may not import {module}'
        elif layer == 'dnnlib' and top == 'torch':
            reason = 'dnnlib knows no torch'
        elif DATA in path.parents and (top == 'torch' or top in OURS - {'dnnlib'} and not f'{module}.{name}'.startswith('training.data.')):
            reason = f'training/data may not import {module}'
        elif layer == 'inference' and top == 'inr' and path not in PAINTER:
            reason = 'only the painter asks for inr'
        if reason:
            found.append(f'{path}:{line}: {reason}')
    if layer == 'inr':
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and called(node) in HOST_CALLS and any(keyword.arg == 'impl' for keyword in node.keywords):
                found.append(f'{path}:{node.lineno}: {called(node)} is called with impl=')
    return found


def test_layering():
    assert len(SOURCES) > 10
    assert [each for path in SOURCES for each in violations((ROOT / path).read_text(), path)] == []


def test_files_are_short():
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in SOURCES}
    assert {path: n for path, n in lengths.items() if n > 1.1 * (LENGTH_NETWORKS if path.name == 'networks.py' else LENGTH)} == {}


def test_commands_do_not_need_torch_to_start():
    present = [name for name in sorted(COMMANDS) if (ROOT / f'{name}.py').exists()]
    code = f'import sys, {", ".join(["dnnlib.cli", *present])}; print([m for m in ("torch", "scipy", "tensorboard") if m in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr


@pytest.mark.parametrize('path, source, reason', [
    ('dnnlib/a.py', 'def f():\n    import torch', '2: dnnlib knows no torch'),
    ('dnnlib/a.py', 'from torch_utils import misc', 'dnnlib may not import torch_utils'),
    ('torch_utils/ops/a.py', 'import training.loss', 'torch_utils may not import training.loss'),
    ('training/a.py', 'def f():\n    from inr import render', '2: training may not import inr'),
    ('training/a.py', 'from metrics.detectors import x', 'training may not import metrics.detectors'),
    ('training/a.py', 'import importlib\nimportlib.import_module("inr.presets")', '2: training may not import inr.presets'),
    ('training/a.py', 'optional("inr.presets", "PRESETS", {})', 'training may not import inr.presets'),
    ('training/a.py', 'util.get_obj_by_name("inr.render.render")', 'training may not import inr.render'),
    ('training/a.py', 'construct_class_by_name(class_name="inr.generator.Generator", z_dim=4)', 'training may not import inr.generator'),
    ('training/sub/a.py', 'from ...metrics import x', 'training may not import metrics'),
    ('training/data/a.py', 'import torch', 'training/data may not import torch'),
    ('training/data/a.py', 'from training.dataset import ImageDataset', 'training/data may not import training.dataset'),
    ('training/data/a.py', 'from torch_utils import misc', 'training/data may not import torch_utils'),
    ('training/a.py', 'from inference import opening', 'training may not import inference'),
    ('inference/targets.py', 'from inr import render', 'only the painter asks for inr'),
    ('inference/a.py', 'from metrics import perceptual', 'inference may not import metrics'),
    ('metrics/a.py', 'from inr.render import render', 'metrics may not import inr.render'),
    ('viewing/a.py', 'from inr.render import render', 'viewing may not import inr.render'),
    ('inference/a.py', 'from viewing import state', 'inference may not import viewing'),
    ('inr/a.py', 'from dnnlib.util import UserError', 'inr may not take UserError'),
    ('inr/a.py', 'from training.networks import Generator', 'inr may not take Generator'),
    ('inr/a.py', 'import training.networks', 'inr may not take training.networks'),
    ('inr/ops/a.py', 'from torch_utils.ops import grid_sample', 'inr may not take grid_sample'),
    ('inr/a.py', 'from torch_utils import misc', 'inr may not take misc'),
    ('inr/a.py', 'bias_act.bias_act(x, impl="ref")', 'bias_act is called with impl='),
    ('inr/a.py', 'upfirdn2d.upsample2d(x, f, impl="ref")', 'upsample2d is called with impl='),
    ('generate.py', 'def f():\n    import train', '2: nothing imports train'),
    ('training/a.py', 'from tests.helpers import ROOT', 'nothing imports tests'),
    ('benchmarks/bench_a.py', 'from benchmarks import common', 'nothing imports benchmarks'),
])
def test_a_violation_is_seen(path, source, reason):
    found = violations(source, path)
    assert len(found) == 1 and found[0].startswith(path + ':') and reason in found[0]


@pytest.mark.parametrize('path, source', [
    ('inr/a.py', 'from training.networks import FullyConnectedLayer, MappingNetwork'),
    ('inr/a.py', 'from torch_utils.ops import bias_act, conv2d_resample, upfirdn2d\nimport torch\nfmm.fmm(x, impl="ref")'),
    ('inr/ops/a.py', 'from ..grid import coordinates\nfrom . import naive\nfrom inr.fmm import fmm_weight'),
    ('metrics/a.py', 'from training.dataset import ImageDataset\nfrom torch_utils import misc'),
    ('training/data/a.py', 'from training.data.files import decode\nfrom training.data import labels\nfrom dnnlib.util import UserError'),
    ('inference/painter.py', 'from inr import render\nfrom torch_utils import pixels\nfrom training.checkpoint import load_networks'),
    ('train.py', 'from training import presets\nfrom inr.presets import PRESETS\nimport torch'),
])
def test_what_is_allowed_passes(path, source):
    assert violations(source, path) == []
