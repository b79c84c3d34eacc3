"""The hot loops, each beside the plain reference its test compares it with.

A kernel takes and returns numpy arrays (`resize_cross_entropy` alone takes torch tensors, for autograd), is compiled
by numba as one serial loop that lets go of the interpreter lock (`compile.py`), and is made parallel by our own small
thread pool (`threads.py`). Where numba is absent, the reference answers, and one warning says so.
"""


def warm_up() -> None:
    """Compile what prediction and evaluation need, or read it from the cache: 3 s the first time, then 0.4 s.

    Whoever must answer the first image as fast as the second (a server) calls it before; others need not.
    """
    import numpy as np

    from terrazzo.kernels.confusion import confusion
    from terrazzo.kernels.resize_argmax import resize_argmax

    mask, _ = resize_argmax(np.zeros((2, 2, 2), np.float32), (4, 4), confidence=True)
    confusion(mask, mask, 2)
