"""The catalogue: one flat file per result we stand behind.

The docstring of a file is its promise: the paper, the exact command, hardware, hours, the expected mIoU and its
spread, the date; "not measured" where it is not. Its one function, `recipe()`, returns the whole decision; nothing is
inherited. A variant calls one sibling and replaces fields. `terrazzo recipes` lists them by the name of the file.
"""
