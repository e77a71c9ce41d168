"""Adapters of the backends, and what they share.

A package of its own, so that no file here shadows a runtime of the same name. Standard library
and the runtime of the backend only; nothing of `workbench`. The syntax stays at Python 3.10.
"""
