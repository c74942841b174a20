"""ONNX graphs of functions, drawn by onnxruntime."""

import sys

import numpy as np
import pytest
import torch

import generate
from inr import fixed, grid, render
from tests import tiny_snapshots
from tests.inr.test_function import generator
from tests.tiny_snapshots import call, mistake

CASES = [(64, 64, grid.WHOLE), (90, 140, grid.WHOLE), (1, 1, grid.WHOLE), (33, 47, (-0.3, -0.2, 1.4, 1)), (9, 30, (0.4, 0.4, 0.43, 0.45)),
         (20, 33, grid.WHOLE), (40, 30, (-1, -1, 2, 2)), (16, 17, (0.45, 0.4, 0.52, 0.47)), (16, 17, (0.99, 0.3, 1, 0.31))]
FAR = (20, 33, (900, -700, 901, -699))  # where only the coordinates of a torus are still exact


def session_of(model):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])


@pytest.mark.parametrize('kind, refine', [('linear', 'all'), ('linear', 'last'), ('constants', 'smooth'), ('constants', 'all'),
                                          ('generated', 'all'), ('cips', 'all'), ('hypernetwork', 'all'),
                                          ('any size', 'all'), ('any size', 'last'), ('any size', 'smooth'), ('periodic', 'all'),
                                          ('torus', 'all'), ('torus', 'last'), ('oblong', 'all'), ('tall', 'smooth')])
def test_the_graph_draws_the_generators_image(kind, refine):
    from inr import onnx_graph

    G = generator(kind)
    ws = torch.randn(1, G.num_ws, 8)
    function = fixed.function_of(G, ws, refine=refine)
    session = session_of(function.to_onnx())
    for height, width, window in [*CASES, FAR] if kind == 'torus' else CASES:
        given = onnx_graph.inputs_of(height, width, window, function.form.lower_corner, function.form.extent)
        (drawn,) = session.run(None, given)
        expected = render.render(G, ws, height, width, window, refine).numpy()
        assert drawn.dtype == np.float32 and drawn.shape == expected.shape and np.abs(drawn - expected).max() < 1e-4


@pytest.mark.parametrize('kind', ['linear', 'generated', 'cips', 'hypernetwork', 'tanh', 'torus', 'generated pixels'])
def test_w_may_be_an_input(kind):
    from inr import onnx_graph

    G = generator(kind)
    ws, other = torch.randn(2, 1, G.num_ws, 8)
    function = fixed.function_of(G, ws, 'none')
    session = session_of(function.to_onnx((G, ws, 'none')))
    given = onnx_graph.inputs_of(20, 30, (-0.1, 0.2, 0.8, 1.1), function.form.lower_corner)
    for w, more in ((ws, {}), (other, {'ws': other.numpy()}), (ws, {'ws': ws.numpy()})):
        expected = render.render(G, w, 20, 30, (-0.1, 0.2, 0.8, 1.1), noise_mode='none').numpy()
        assert np.abs(session.run(None, given | more)[0] - expected).max() < 1e-4
    assert np.abs(render.render(G, ws, 20, 30).numpy() - render.render(G, other, 20, 30).numpy()).max() > 0.1


def test_what_the_graph_has_no_operator_for_is_named(monkeypatch):
    from inr import onnx_weights

    G = generator('linear')
    ws = torch.randn(1, G.num_ws, 8)
    monkeypatch.delitem(onnx_weights.RULES, 'rsqrt')
    with pytest.raises(fixed.NoFunction, match='no operator for rsqrt'):
        fixed.function_of(G, ws).to_onnx((G, ws, 'const'))


def test_inputs_and_opset_are_the_documented_ones():
    import onnx

    G = generator('linear')
    model = onnx.load_from_string(fixed.function_of(G, torch.zeros(1, G.num_ws, 8)).to_onnx())
    both = (*model.graph.input, *model.graph.output)
    shapes = {each.name: [d.dim_value or d.dim_param for d in each.type.tensor_type.shape.dim] for each in both}
    assert shapes == {'u': ['W'], 'v': ['H'], 'density': [2], 'image': [1, 4, 'H', 'W']} and model.opset_import[0].version == 17


def test_generate_writes_it(tmp_path, monkeypatch):
    from inr import onnx_graph

    G = tiny_snapshots.inr()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    args = [f'--network={network}', '--seeds=3', '--format=onnx', f'--outdir={tmp_path}']
    code, out, _err = call(generate.main, *args)
    assert code == 0 and f'{tmp_path}/seed0003.onnx' in out
    assert session_of(str(tmp_path / 'seed0003.onnx')).run(None, onnx_graph.inputs_of(16, 24))[0].shape == (1, 3, 16, 24)
    assert call(generate.main, *args, '--format=onnx-w')[0] == 0
    session = session_of(str(tmp_path / 'seed0003.w.onnx'))  # beside the other
    assert [(each.name, each.shape) for each in session.get_overridable_initializers()] == [('ws', [1, G.num_ws, G.w_dim])]
    other = tiny_snapshots.save(tmp_path / 'b.safetensors', tiny_snapshots.inr(upsampling='bilinear'))
    assert 'the graph has no bilinear reads of coarser grids; --format=function has' in mistake(generate.main, *args, f'--network={other}')
    monkeypatch.setitem(sys.modules, 'onnx', None)
    assert "--format=onnx: it needs a package that is not here" in mistake(generate.main, *args)
