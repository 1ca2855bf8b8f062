"""Medical-imaging machine learning from the scanner to the bedside, with a chain of custody that a machine can check.

    import bedside as bs

    config   = bs.load("hip-ct.yaml")
    dataset  = bs.ingest(config, "pacs-export/")
    run      = bs.train(config, dataset)
    evidence = bs.evaluate(run.best(), dataset.cases("test"))
    verdict  = bs.promote(run.best(), evidence, config.promote)
    fast     = bs.accelerate(run.best(), dataset.cases("calibrate"), engine="onnxruntime")
    answer   = bs.open(fast)(bs.read("new-scan/"))
    objects  = bs.predict(fast, "new-scan/", "results/")
    history  = bs.verify(fast)

Names are imported when first used, so `import bedside` takes milliseconds.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bedside.accelerate.pipeline import accelerate
    from bedside.core.case import Case, Prediction
    from bedside.core.config import Config, load
    from bedside.core.contract import Contract
    from bedside.core.custody import History, verify
    from bedside.core.dataset import Dataset
    from bedside.core.errors import BedsideError
    from bedside.core.evidence import Evidence, Verdict
    from bedside.core.model import Model
    from bedside.core.run import Run
    from bedside.core.volume import Volume
    from bedside.engines.predict import open_model as open
    from bedside.evaluate.pipeline import evaluate
    from bedside.ingest.pipeline import ingest
    from bedside.mirror import mirror
    from bedside.predict.pipeline import predict
    from bedside.predict.read import read
    from bedside.promote.pipeline import Promotion, promote
    from bedside.train.pipeline import train

__version__ = "0.1.0"

_HOME = {
    "BedsideError": "bedside.core.errors",
    "Case": "bedside.core.case",
    "Config": "bedside.core.config",
    "Contract": "bedside.core.contract",
    "Dataset": "bedside.core.dataset",
    "Evidence": "bedside.core.evidence",
    "History": "bedside.core.custody",
    "Model": "bedside.core.model",
    "Prediction": "bedside.core.case",
    "Promotion": "bedside.promote.pipeline",
    "Run": "bedside.core.run",
    "Verdict": "bedside.core.evidence",
    "Volume": "bedside.core.volume",
    "accelerate": "bedside.accelerate.pipeline",
    "evaluate": "bedside.evaluate.pipeline",
    "ingest": "bedside.ingest.pipeline",
    "load": "bedside.core.config",
    "mirror": "bedside.mirror",
    "open": "bedside.engines.predict:open_model",
    "predict": "bedside.predict.pipeline",
    "promote": "bedside.promote.pipeline",
    "read": "bedside.predict.read",
    "train": "bedside.train.pipeline",
    "verify": "bedside.core.custody",
}

__all__ = [
    "BedsideError",
    "Case",
    "Config",
    "Contract",
    "Dataset",
    "Evidence",
    "History",
    "Model",
    "Prediction",
    "Promotion",
    "Run",
    "Verdict",
    "Volume",
    "accelerate",
    "evaluate",
    "ingest",
    "load",
    "mirror",
    "open",
    "predict",
    "promote",
    "read",
    "train",
    "verify",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'bedside' has no attribute {name!r}")
    module, _, attribute = home.partition(":")
    value = getattr(import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Face(ModuleType):
    """A verb is a function and a folder: importing `bedside.train.loop` must not put the folder in the function's place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
