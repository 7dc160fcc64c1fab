"""What `mixtura new plugin NAME` writes: a small plugin that is real: a source, a system, a configuration, a demo and a test.

The system learns to continue waves from a mixture of smooth and square ones, which trains on a CPU in seconds. Texts hold
@NAME@ (my_model), @TITLE@ (My model), @CLASS@ (MyModel) and @DIST@ (mixtura-my-model).
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from mixtura import API_VERSION
from mixtura.errors import MixturaError
from mixtura.plugins import registry

SETUP = """\
[metadata]
name = @DIST@
version = 0.1.0
description = @CLASS@ as a Mixtura plugin

[options]
packages = find:
python_requires = >=3.11
install_requires =
    mixtura >=0.1,<0.2

[options.extras_require]
demo =
    mixtura-demos >=0.1,<0.2

[options.packages.find]
include =
    mixtura_@NAME@
    mixtura_@NAME@.*

[options.entry_points]
mixtura.plugins =
    @NAME@ = mixtura_@NAME@:plugin

[tool:pytest]
testpaths = tests
pythonpath = .
"""

PYPROJECT = """\
[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"
"""

README = """\
# @DIST@

A plugin for Mixtura. It offers the system `@NAME@`, which continues waves, the source `@NAME@_waves`, which makes them, and a
demo of the system in the browser.

```
pip install -e .
mixtura plugins @NAME@
mixtura train configs/quickstart.yaml
mixtura demo @NAME@              # needs mixtura-demos; `mixtura demo` opens it among the others
pytest
```

To make it yours: put your networks and losses into `system.py`, your data into `data.py`, and their settings into `config.py`
and `data.py`; `demo.py` shows what the system does. `mixtura_@NAME@/__init__.py` tells Mixtura what there is; it must stay
free of heavy imports.
"""

INIT = '''\
"""@CLASS@ for Mixtura."""

from __future__ import annotations

from mixtura.plugins import Plugin

plugin = Plugin(
    name="@NAME@",
    api=@API@,
    summary="continues waves",
    systems={"@NAME@": "mixtura_@NAME@.system:@CLASS@"},
    sources={"@NAME@_waves": "mixtura_@NAME@.data:Waves"},
    demos={"@NAME@": "mixtura_@NAME@.demo:build"},
)
'''

CONFIG = '''\
"""The settings of @CLASS@."""

from __future__ import annotations

from mixtura.system import SystemConfig
from pydantic import Field


class @CLASS@Config(SystemConfig):
    """The `system:` section."""

    window: int = Field(16, ge=2, description="points that the system sees; the source's `window` must be the same")
    hidden: int = Field(32, ge=1, description="width of the network")
'''

DATA = '''\
"""Waves: windows of a sine or a square wave and the point that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from mixtura.data.source import Sample, SourceConfig, SourceInfo
from mixtura.rng import KeyedRng
from pydantic import Field


class WavesConfig(SourceConfig):
    """A section of `sources:`."""

    shape: Literal["sine", "square"] = "sine"
    size: int = Field(1000, ge=1, description="samples")
    window: int = Field(16, ge=2, description="points before the one to predict")
    noise: float = Field(0.05, ge=0, description="standard deviation of the noise on the points")


class Waves:
    """Samples with `history` (window,) and `next` (), float32. Reading is pure: an index gives the same sample for ever."""

    Config = WavesConfig

    def __init__(self, config: WavesConfig, name: str, root: Path) -> None:
        self.config = config
        self.info = SourceInfo(name, config.size, fingerprint=config.model_dump_json(), max_epochs=config.max_epochs)

    def __len__(self) -> int:
        return self.config.size

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """The sample at `index`."""
        numbers = KeyedRng("waves", self.config.shape, index).numpy()
        angle = numbers.uniform(0, 2 * np.pi) + numbers.uniform(0.2, 0.6) * np.arange(self.config.window + 1)
        wave = np.sin(angle) if self.config.shape == "sine" else np.sign(np.sin(angle))
        wave[:-1] += self.config.noise * numbers.standard_normal(self.config.window)
        values = wave.astype(np.float32)
        return Sample({"history": values[:-1], "next": values[-1]}, key=f"{self.config.shape}/{index}")
'''

SYSTEM = '''\
"""@CLASS@: predicts the point that follows a window of points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mixtura.data.source import Sample
from mixtura.errors import DataError
from mixtura.system import Batch, LossTerm, StepContext, System
from torch import Tensor, nn

from mixtura_@NAME@.config import @CLASS@Config


class @CLASS@(System):
    """One term, `next`: the squared error of the predicted point, over samples."""

    Config = @CLASS@Config

    def __init__(self, config: @CLASS@Config) -> None:
        super().__init__(config)
        self.window = config.window
        width = config.hidden
        self.body = nn.Sequential(nn.Linear(config.window, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.head = nn.Linear(config.hidden, 1)

    def forward(self, history: Tensor) -> Tensor:
        """(B, window) to (B,)."""
        return self.head(self.body(history))[:, 0]

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """`history` (B, window) and `next` (B,)."""
        history = np.stack([sample.fields["history"] for sample in samples])
        if history.shape[1] != self.window:
            found = history.shape[1]
            raise DataError(f"{samples[0].source}: samples have {found} points, system.window is {self.window}; make them equal")
        return {"history": torch.from_numpy(history), "next": torch.tensor([float(sample.fields["next"]) for sample in samples])}

    def counts(self, batch: Batch) -> dict[str, Tensor | float]:
        """One item for each sample."""
        return {"next": float(len(batch["next"]))}

    def losses(self, batch: Batch, ctx: StepContext) -> dict[str, LossTerm]:
        """Sums over samples; the trainer divides by the counts of the whole step."""
        totals = (self(batch["history"]) - batch["next"]) ** 2
        if ctx.sample_weight is not None:
            totals = totals * ctx.sample_weight
        return {"next": LossTerm.of(totals, torch.ones_like(totals))}

    @torch.no_grad()
    def infer(self, **inputs: Any) -> Mapping[str, Any]:
        """`history` (B, window) gives `next` (B,)."""
        history = torch.as_tensor(inputs["history"], dtype=torch.float32)
        return {"next": self(history.to(self.head.weight.device))}
'''

DEMO = '''\
"""The demo of @CLASS@: draws a wave, lets the system predict the point that follows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from mixtura_demos.shared import checkpoints, jobs
from mixtura_demos.shared.errors import Refused
from mixtura_demos.shared.look import note

title = "@TITLE@"


def build(run: Path | None = None) -> gr.Blocks:
    """The page. Nothing heavy is imported here: weights and torch come when the button is pressed."""
    demo: gr.Blocks
    with gr.Blocks(title=title) as demo:
        note("A wave is drawn; the system sees its points and predicts the next one.")
        weights = checkpoints.picker("@NAME@", run)
        with gr.Row():
            shape = gr.Radio(["sine", "square"], value="sine", label="Shape")
            noise = gr.Number(0.05, label="Noise")
            seed = gr.Number(0, label="Seed", precision=0)
        with gr.Row():
            start, cancel = gr.Button("Continue the wave", variant="primary"), gr.Button("Cancel")
        result = gr.Textbox(label="Result", interactive=False)
        plot = gr.LinePlot(label="Wave", x="point", y="value", color="what", height=260)
        jobs.run(start, predict, [weights, shape, noise, seed], [result, plot], cancel)
    return demo


def predict(value: str | None, shape: str, noise: float | None, seed: float | None) -> tuple[str, Any]:
    """What the page shows: a sentence and the points. Errors that a user can mend are raised as MixturaError."""
    if noise is None or not 0 <= noise <= 1:
        raise Refused(f"noise must be between 0 and 1, not {noise}; write 0.05")
    system = checkpoints.load(checkpoints.chosen(value, "@NAME@"))
    began = time.monotonic()
    history, truth = wave(system.config.window, shape, float(noise), int(seed or 0))
    found = float(system.infer(history=history[None])["next"][0])
    text = f"predicted {found:.3f}, the wave goes on with {truth:.3f}; seed {int(seed or 0)}, {time.monotonic() - began:.3f} s"
    return text, points(history, found)


def wave(window: int, shape: str, noise: float, seed: int) -> tuple[np.ndarray, float]:
    """`window` points of a wave with noise, and the point that follows."""
    numbers = np.random.default_rng(abs(seed))
    angle = numbers.uniform(0, 2 * np.pi) + numbers.uniform(0.2, 0.6) * np.arange(window + 1)
    values = np.sin(angle) if shape == "sine" else np.sign(np.sin(angle))
    noisy = values[:-1] + noise * numbers.standard_normal(window)
    return noisy.astype(np.float32), float(values[-1])


def points(history: np.ndarray, found: float) -> Any:
    """A table for the plot."""
    import pandas as pd

    rows = [{"point": number, "value": float(value), "what": "seen"} for number, value in enumerate(history)]
    return pd.DataFrame([*rows, {"point": len(history), "value": found, "what": "predicted"}])
'''

QUICKSTART = """\
# Smooth and square waves, three to one. Trains on a CPU in seconds: mixtura train configs/quickstart.yaml
system: {type: @NAME@, window: 16, hidden: 32}
run: {name: @SLUG@-quickstart, seed: 17}
sources:
  smooth: {type: @NAME@_waves, shape: sine}
  square: {type: @NAME@_waves, shape: square}
data: {global_batch: 32, workers: 0}
optim: {lr: 3e-3}
schedule: {type: cosine, warmup: 20}
train: {threads: 1}
stages:
  - {name: main, steps: 300, mixture: {smooth: 3, square: 1}}
"""

TEST = '''\
"""@CLASS@: what it offers, that reading is pure, and that it learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mixtura.config import load
from mixtura.plugins import registry
from mixtura.rng import KeyedRng

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"


@pytest.fixture(autouse=True)
def _plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin is found whether it is installed or not."""
    monkeypatch.setenv("MIXTURA_PLUGINS", "mixtura_@NAME@:plugin")
    registry.cache_clear()


def test_the_registry_offers_the_system_and_the_source() -> None:
    assert registry().get("system", "@NAME@").__name__ == "@CLASS@"
    assert registry().names("source")["@NAME@_waves"].name == "@NAME@"


def test_the_demo_is_built_and_refuses_what_is_wrong() -> None:
    pytest.importorskip("mixtura_demos", reason="the demo needs mixtura-demos")
    gradio = pytest.importorskip("gradio")
    from mixtura.errors import MixturaError
    from mixtura_@NAME@.demo import predict, wave

    assert isinstance(registry().get("demo", "@NAME@")(None), gradio.Blocks)
    history, _ = wave(16, "sine", 0.0, seed=3)
    assert np.array_equal(history, wave(16, "sine", 0.0, seed=3)[0])
    with pytest.raises(MixturaError, match="noise must be"):
        predict(None, "sine", 2.0, 0)
    with pytest.raises(MixturaError, match="train some first"):
        predict(None, "sine", 0.1, 0)


def test_reading_is_pure() -> None:
    section = load(QUICKSTART).config.sources["smooth"]
    source = registry().get("source", "@NAME@_waves")(section, name="smooth", root=Path())
    first, second = source.read(3, KeyedRng(0)), source.read(3, KeyedRng(1))
    assert np.array_equal(first.fields["history"], second.fields["history"])
    assert len(source) == source.info.size


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    from mixtura.trainer import train

    settings = ["stages.0.steps=60", "log={every: 10, to: [jsonl]}", "schedule.warmup=5"]
    assert train(load(QUICKSTART, settings).config, root=tmp_path) == 0
    log = next(tmp_path.glob("runs/*/log.jsonl")).read_text().splitlines()
    losses = [line["loss"] for line in map(json.loads, log) if line["kind"] == "train"]
    assert losses[-1] < losses[0] / 2
'''

FILES = {
    "setup.cfg": SETUP,
    "pyproject.toml": PYPROJECT,
    "README.md": README,
    "mixtura_@NAME@/__init__.py": INIT,
    "mixtura_@NAME@/config.py": CONFIG,
    "mixtura_@NAME@/data.py": DATA,
    "mixtura_@NAME@/system.py": SYSTEM,
    "mixtura_@NAME@/demo.py": DEMO,
    "configs/quickstart.yaml": QUICKSTART,
    "tests/test_@NAME@.py": TEST,
}


def write_plugin(name: str, where: Path) -> Path:
    """Write the plugin folder `where/name` and return it. Raises MixturaError for a bad or taken name or an old folder."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise MixturaError(
            f"a plugin can't be called '{name}'; use lower-case letters, digits and _, beginning with a letter, as my_model"
        )
    for info in registry().plugins():
        if info.name == name or name in info.plugin.systems:
            raise MixturaError(f"'{name}' is taken by {info}; choose another name")
    folder = where / name
    if folder.exists():
        raise MixturaError(f"{folder} exists already; choose another name or --dir")
    dashed = name.replace("_", "-")
    words = {
        "@NAME@": name,
        "@CLASS@": name.title().replace("_", ""),
        "@DIST@": f"mixtura-{dashed}",
        "@SLUG@": dashed,
        "@TITLE@": name.replace("_", " ").capitalize(),
        "@API@": str(API_VERSION),
    }
    for path, text in FILES.items():
        for mark, word in words.items():
            path, text = path.replace(mark, word), text.replace(mark, word)
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder
