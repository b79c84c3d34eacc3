"""The hot loops, each beside the plain reference its test compares it with.

A kernel takes and returns numpy arrays, is compiled by numba as one serial loop that lets go of the interpreter lock
(`compile.py`), and is made parallel by our own small thread pool (`threads.py`). Where numba is absent, the reference
answers, and one warning says so. Some take torch tensors, for autograd or because those lie on a GPU; on a CUDA device
the kernels of `gpu/` answer, through the same functions.
"""
