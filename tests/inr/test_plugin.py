"""inr/ copied alone into a project that has only the five interfaces it takes from its host, a small stand-in of which is written here."""

import shutil
import subprocess
import sys

from tests.helpers import ROOT

NETWORKS = '''
import numpy as np
import torch
from torch_utils.ops import bias_act

class FullyConnectedLayer(torch.nn.Module):
    def __init__(self, in_features, out_features, bias=True, activation='linear', lr_multiplier=1, bias_init=0):
        super().__init__()
        self.activation = activation
        self.weight = torch.nn.Parameter(torch.randn([out_features, in_features]) / lr_multiplier)
        self.bias = torch.nn.Parameter(torch.full([out_features], np.float32(bias_init))) if bias else None
        self.weight_gain, self.bias_gain = lr_multiplier / np.sqrt(in_features), lr_multiplier

    def forward(self, x):
        y = x.matmul((self.weight.to(x.dtype) * self.weight_gain).t())
        return bias_act.bias_act(y, self.bias.to(x.dtype) * self.bias_gain, act=self.activation)

class MappingNetwork(torch.nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, num_ws, num_layers=8, embed_features=None, layer_features=None, activation='lrelu',
                 lr_multiplier=0.01, w_avg_beta=0.995):
        super().__init__()
        self.num_ws = num_ws
        self.fc0 = FullyConnectedLayer(z_dim, w_dim, activation=activation, lr_multiplier=lr_multiplier)
        self.register_buffer('w_avg', torch.zeros([w_dim]))

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, skip_w_avg_update=False):
        w = self.fc0(z.to(torch.float32))
        if self.training and not skip_w_avg_update:
            self.w_avg.copy_(w.detach().mean(dim=0).lerp(self.w_avg, 0.995))
        return self.w_avg.lerp(w.unsqueeze(1).repeat([1, self.num_ws, 1]), truncation_psi)
'''
BIAS_ACT = '''
import torch

def bias_act(x, b=None, dim=1, act='linear', alpha=None, gain=None, clamp=None):  # a host's own default implementation: no impl= accepted
    if b is not None:
        x = x + b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    x = {'linear': lambda x: x, 'lrelu': lambda x: torch.nn.functional.leaky_relu(x, 0.2) * 2 ** 0.5}[act](x)
    return x if clamp is None else x.clamp(-clamp, clamp)
'''
HOST = '''
import copy, io, pickle
import numpy as np
import torch
from inr.generator import Generator
from inr import hypernetwork, render

class EasyDict(dict):
    __getattr__ = dict.__getitem__

torch.manual_seed(0)
for cls in (Generator, hypernetwork.Generator):
    G = cls(z_dim=8, c_dim=0, w_dim=8, img_resolution=64, img_channels=3, mapping_kwargs=EasyDict(num_layers=2),
            synthesis_kwargs=EasyDict(channel_base=256, channel_max=8, num_fp16_res=0, conv_clamp=None, fp16_channels_last=False))
    G = G.train().requires_grad_(False)
    G_ema = copy.deepcopy(G).eval()
    assert G_ema.synthesis.num_ws == G.mapping.num_ws == G.num_ws

    G.requires_grad_(True)  # main phase, style mixing written in place
    z, c = torch.randn(4, 8), torch.zeros(4, 0)
    ws = G.mapping(z, c)
    ws[:, 3:] = G.mapping(torch.randn_like(z), c, skip_w_avg_update=True)[:, 3:]
    torch.nn.functional.softplus(-G.synthesis(ws).mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in G.parameters())

    G.zero_grad()  # path length phase
    ws = G.mapping(z[:2], c[:2])
    image = G.synthesis(ws)
    noise = torch.randn_like(image) / np.sqrt(image.shape[2] * image.shape[3])
    gradient = torch.autograd.grad(outputs=[(image * noise).sum()], inputs=[ws], create_graph=True, only_inputs=True)[0]
    lengths = gradient.square().sum(2).mean(1).sqrt()
    ((lengths - 0.1).square() + image[:, 0, 0, 0] * 0).mean().backward()
    assert G.synthesis.b64.layers[0].weight.grad.abs().sum() > 0

    with torch.no_grad():  # averaged copy
        for p_ema, p in zip(G_ema.parameters(), G.parameters()):
            p_ema.copy_(p.lerp(p_ema, 0.9))
        for b_ema, b in zip(G_ema.buffers(), G.buffers()):
            b_ema.copy_(b)

    twin = pickle.loads(pickle.dumps(dict(G_ema=copy.deepcopy(G_ema).eval().requires_grad_(False).cpu())))['G_ema']
    z = torch.from_numpy(np.random.RandomState(0).randn(1, 8))
    image = twin(z, None, truncation_psi=0.7, noise_mode='const')
    assert torch.equal(image, G_ema(z, None, truncation_psi=0.7, noise_mode='const')) and image.shape == (1, 3, 64, 64)

    ws = twin.mapping(z, None, truncation_psi=0.7)
    assert torch.equal(render.render(twin, ws, 64, 64), image) and render.render(twin, ws, 30, 50).shape == (1, 3, 30, 50)
try:
    Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=64, img_channels=3, synthesis_kwargs=dict(channel_max=8, pixel_norm=False))
    raise SystemExit('this host cannot leave z as it is, and was not told')
except ValueError:
    pass
print('drawn')
'''


def test_copied_alone_into_a_host_it_trains_and_draws(tmp_path):
    shutil.copytree(ROOT / 'inr', tmp_path / 'inr', ignore=shutil.ignore_patterns('__pycache__'))
    files = {'training/networks.py': NETWORKS, 'torch_utils/ops/bias_act.py': BIAS_ACT, 'host.py': HOST}
    files |= {f'{package}/__init__.py': '' for package in ('training', 'torch_utils', 'torch_utils/ops')}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = subprocess.run([sys.executable, '-W', 'error', 'host.py'], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip() == 'drawn', done.stderr
