# SPDX-License-Identifier: Apache-2.0
"""Give NumPy back the names that MXNet 1.9.1 expects, the moment mxnet is imported.

MXNet 1.9.1 uses ``np.bool`` and its kin, which NumPy dropped in 1.24, and nothing older than 1.24
suits the rest of the environment.  Horovod's build and ``horovodrun`` import mxnet too, so the
cure has to reach every process: ``setup.sh`` copies this module and a ``.pth`` file that imports
it into site-packages.  A process that never imports mxnet pays for one entry in
``sys.meta_path`` and nothing else.
"""

import sys

ALIASES = {"bool": bool, "int": int, "float": float, "object": object, "str": str}


class MxnetImportHook:
    """A finder that finds nothing: it only sees that mxnet is about to be imported."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        """Set the aliases when ``name`` is mxnet, then leave the search to the others."""
        # It stays in the list: the import that walks through it would miss the hook after this one.
        if name == "mxnet":
            if sys.version_info >= (3, 12):
                import setuptools  # noqa: F401  mxnet imports distutils, which setuptools brings
            import numpy

            for alias, builtin in ALIASES.items():
                if alias not in vars(numpy):
                    setattr(numpy, alias, builtin)
        return None


if MxnetImportHook not in sys.meta_path and "mxnet" not in sys.modules:
    sys.meta_path.insert(0, MxnetImportHook)
