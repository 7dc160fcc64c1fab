"""What the tests of configurations share: a plugin with sections of its own, and a configuration that is right."""

from __future__ import annotations

from pathlib import Path

from mixtura.config import loads
from mixtura.config.schema import RunConfig

MINI = """
from typing import Any, Literal
from pydantic import BaseModel, ConfigDict, Field, model_validator
from mixtura.plugins import Plugin

class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    heads: int = 2

class Base(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    type: str

class Net(Base):
    size: Literal["tiny", "full"] = "tiny"
    width: int = Field(8, ge=1)
    rate: float = 0.5
    label: str = ""
    dims: tuple[int, int] = (1, 2)
    inner: Inner = Inner()
    options: dict[str, Any] = {}
    @model_validator(mode="after")
    def _even(self):
        if self.width == 13:
            raise ValueError("width 13 brings bad luck")
        return self
    @model_validator(mode="before")
    @classmethod
    def _fails(cls, data):
        if data.get("label") == "boom":
            raise KeyError("boom")
        return data

class Other(Base):
    depth: int = 1
class Files(Base):
    path: str
class Score(Base):
    name: str | None = None
    every: int | None = None

class System: Config = Net
class OtherSystem: Config = Other
class Source: Config = Files
class Made: Config = Other
class Evaluator: Config = Score
class NoConfig: pass

plugin = Plugin(
    name="mini",
    systems={f"{n}": f"mini_config_plugin:{c}" for n, c in (("net", "System"), ("other", "OtherSystem"), ("bare", "NoConfig"))},
    sources={"files": "mini_config_plugin:Source", "made": "mini_config_plugin:Made"},
    generators={"made": "mini_config_plugin:Made"}, evaluators={"score": "mini_config_plugin:Evaluator"},
)
"""

GOOD = """
system: {type: net, width: 16}
run: {name: first, seed: 17}
sources:
  robot: {type: files, path: data/robot}
  qa: {type: files, path: data/qa}
optim: {lr: 1e-4, betas: [0.9, 0.99], groups: [{match: "body.*", lr_scale: 0.1}]}
stages:
  - {name: warm, steps: 100, mixture: {robot: 1}}
  - {name: main, steps: 300, mixture: {robot: 3, qa: 1}, optim: {lr: 2e-4}}
evaluate: [{type: score, every: 50}]
"""


def put(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def good(*tokens: str) -> RunConfig:
    return loads(GOOD, tokens).config
