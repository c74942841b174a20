"""Differentiable operators with one API each: `impl='auto'|'ref'|'cuda'` chooses who computes them, never what comes out.

The plain PyTorch implementations here ('ref') run on every device and dtype and are the reference for whatever is faster.
'cuda' is the kernels in the .cu files, compiled at their first use (`native`).
"""
