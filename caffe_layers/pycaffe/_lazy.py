"""Lazy imports."""

import importlib.util
import sys
import threading
import types


class _LazyModule(types.ModuleType):
    """A module whose code runs on the first access to one of its names."""

    def __getattr__(self, name):
        if name.startswith("__") and name != "__all__":  # used by import and inspect
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        _load(self)
        return types.ModuleType.__getattribute__(self, name)

    def __dir__(self):
        _load(self)
        return types.ModuleType.__dir__(self)


_lock = threading.RLock()
_loading = set()


def _load(module):
    with _lock:  # other threads wait; a circular import continues with a partial module
        if type(module) is not _LazyModule or module.__name__ in _loading:
            return
        _loading.add(module.__name__)
        try:
            module.__spec__.loader.exec_module(module)
            module.__class__ = types.ModuleType
        finally:
            _loading.discard(module.__name__)


def lazy_module(name: str) -> types.ModuleType:
    """The module `name`, added to sys.modules; its code runs when one of its names is first used.

    Raises ModuleNotFoundError if it is missing. An exception of its code is raised at that first use and at the next.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _LazyModule
    sys.modules[name] = module
    return module
