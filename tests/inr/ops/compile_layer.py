"""Compiles the kernels of inr/ops/layer_triton.py for a GPU that need not be there: compile_layer.py ARCH TYPE...

ARCH: 90 for sm_90; TYPE: ieee or tf32 (float32), bf16 or fp16. Prints JSON: the bytes of shared memory of each kernel and type, and which
of some instructions there are.
"""

import json
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget

from inr.ops import layer_triton as kernels

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
FLOAT32 = {'layer_kernel': {'bias'}, 'backward_kernel': {'db'}, 'modulate_kernel': {'shared', 'left', 'right'}}  # whatever is computed in
TENSORS = {'y', 'weight', 'bias', 'x', 'features', 'parent', 'dz', 'db', 'pooled', 'dy', 'out', 'shared', 'left', 'right'}
REALS = {'slope', 'gain', 'clamp'}
ODD = {'C', 'E', 'K', 'rank', 'rows'}  # whole numbers that 16 need not divide; it divides strides, sides and what is filled up


def compiled(kernel, dtype, arch, constants, **options):
    """What Triton makes of a kernel for sm_arch."""
    signature = {}
    for name in kernel.arg_names:
        number = 'fp32' if name in FLOAT32[kernel.__name__] else dtype
        signature[name] = 'constexpr' if name in constants else f'*{number}' if name in TENSORS else 'fp32' if name in REALS else 'i32'
    names = [name for name in kernel.arg_names if name not in constants | dict.fromkeys(ODD | REALS)]
    attributes = {(kernel.arg_names.index(name),): [['tt.divisibility', 16]] for name in names}
    source = triton.compiler.ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget('cuda', int(arch), 32), options=options)


def main(arch, *types):
    """Print what the kernels need."""
    found = {}
    for name in types:
        dtype = {'ieee': 'fp32', 'tf32': 'fp32'}.get(name, name)
        tile = kernels.tile_sizes(512, DTYPES[dtype], divmod(int(arch), 10), name == 'ieee')
        options = {key: tile.pop(key) for key in ('num_warps', 'num_stages')}
        flags = dict.fromkeys(('HAS_X', 'HAS_FEATURES', 'HAS_PARENT', 'HAS_BIAS', 'CLAMPS'), True)
        layer = dict(**flags, **tile, UP=2, PRECISION='tf32' if name == 'tf32' else 'ieee')
        runs = {
            'layer': compiled(kernels.layer_kernel, dtype, arch, layer, **options),
            'backward': compiled(kernels.backward_kernel, dtype, arch, dict(UP=2, CLAMPS=True, BLOCK=512, TURNS=8), num_warps=8),
            'modulate': compiled(kernels.modulate_kernel, dtype, arch, dict(BK=512)),
        }
        for kernel, run in runs.items():
            instructions = [word for word in ('wgmma', 'mma.sync', 'cp.async') if word in run.asm['ptx']]
            found[f'{kernel} {name}'] = dict(shared=run.metadata.shared, instructions=instructions)
    print(json.dumps(found))


if __name__ == '__main__':
    main(*sys.argv[1:])
