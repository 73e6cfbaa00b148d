# SPDX-License-Identifier: Apache-2.0
"""Import hook that restores NumPy's removed type aliases before mxnet is imported, and hides SciPy.

MXNet 1.9.1 uses ``np.bool`` and similar aliases, which NumPy 1.24 removed.  Other packages require
NumPy 1.24 or newer.  Horovod's build and ``horovodrun`` import mxnet too, so every process needs
the hook: ``setup.sh`` copies this module into site-packages with a ``.pth`` file that imports it.
In a process that never imports mxnet, the hook only adds an entry to ``sys.meta_path``.

SciPy is optional for mxnet.  If mxnet finds SciPy, each rank starts 0.6 s later, and every call of
``mx.nd.array`` raises a DeprecationWarning.  So this hook hides SciPy while mxnet is imported.
"""

import sys

ALIASES = {"bool": bool, "int": int, "float": float, "object": object, "str": str}


class MxnetImportHook:
    """Import hook for ``sys.meta_path``: restores NumPy's aliases, and hides SciPy from mxnet."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        """Restore the aliases in NumPy if ``name`` is mxnet.

        Return None, so that the next finder of ``sys.meta_path`` imports the module.

        Raises
        ------
        ModuleNotFoundError
            If SciPy is imported while mxnet is imported; mxnet then does without SciPy.
        """
        if name.partition(".")[0] == "scipy":
            spec = getattr(sys.modules.get("mxnet"), "__spec__", None)
            if getattr(spec, "_initializing", False):
                raise ModuleNotFoundError(f"{name} is hidden from mxnet", name=name)
        # Do not remove the hook from sys.meta_path here: Python is iterating over that list and
        # would skip the next finder.
        if name == "mxnet":
            if sys.version_info >= (3, 12):
                import setuptools  # noqa: F401  provides distutils, which mxnet imports
            import numpy

            for alias, builtin in ALIASES.items():
                if alias not in vars(numpy):
                    setattr(numpy, alias, builtin)
        return None


if MxnetImportHook not in sys.meta_path and "mxnet" not in sys.modules:
    sys.meta_path.insert(0, MxnetImportHook)
