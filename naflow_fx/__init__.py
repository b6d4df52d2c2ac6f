"""naflow_fx: attention flow through all layers of a trained CNN, compiled into one graph.

The public names are those of `__init__.pyi`, imported when they are first used: `import naflow_fx`
stays light.
"""

from lazy_loader import attach_stub

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
__all__ += ["__version__"]
