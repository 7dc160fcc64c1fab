"""Seconds of LivePortrait's networks and of whole frames, ours beside the official code, on the same weights.

    python benchmarks/live_portrait.py --peer LivePortrait        # a checkout of KwaiVGI/LivePortrait; without it only ours

F and M see 256 x 256 pixels, W and G make a picture of 512 x 512. A frame is what each driving picture takes, M, W and G, at a
batch of one and of four; F runs once a source. Weights and inputs follow the rule of tests/parity. Contenders take turns in one
process, the first run of each isn't counted; bfloat16 is measured where the processor multiplies it, of the official code under
autocast. PSNR is that of W and G's picture against float32 layer by layer. Prints a table, writes results/live_portrait.json.
"""

from __future__ import annotations

import argparse
import importlib
import runpy
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from common import keep, middle, say
from torch import Tensor, nn

from mixtura_live_portrait.fast import has_bfloat16, ready
from mixtura_live_portrait.keypoints import Motion
from mixtura_live_portrait.nets import Networks
from mixtura_live_portrait.nets.motion import Heads
from mixtura_live_portrait.nets.sizes import Sizes

FILL = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "parity" / "fill.py"))
PREFIXES = {"appearance": "F/", "motion": "M/", "warping": "W/", "generator": "G/", "stitching": "S/stitching/"}
PREFIXES |= {"eyes": "S/eye/", "lips": "S/lip/"}
OFFICIAL = {
    "appearance": ("appearance_feature_extractor", "AppearanceFeatureExtractor", "appearance_feature_extractor_params"),
    "motion": ("motion_extractor", "MotionExtractor", "motion_extractor_params"),
    "warping": ("warping_network", "WarpingNetwork", "warping_module_params"),
    "generator": ("spade_generator", "SPADEDecoder", "spade_generator_params"),
}
"""Ours -> module below src/modules, class, its section of src/config/models.yaml."""
PARTS = {"F": (1,), "M": (1, 4), "W": (1,), "G": (1,), "frame": (1, 4)}
"""What is timed, at which batches."""


@dataclass(frozen=True)
class Contender:
    """F, M, W and G as functions of tensors; W takes volume, driving and source keypoints."""

    f: Callable[[Tensor], Tensor]
    m: Callable[[Tensor], Any]
    w: Callable[[Tensor, Tensor, Tensor], Tensor]
    g: Callable[[Tensor], Tensor]
    autocast: bool = False

    def within(self) -> AbstractContextManager[Any]:
        """What its calls run in."""
        return torch.autocast("cpu", torch.bfloat16) if self.autocast else nullcontext()


def filled() -> Networks:
    """Our networks of the published size with the rule's weights."""
    networks = Networks(Sizes()).eval()
    for name, prefix in PREFIXES.items():
        FILL["fill_module"](networks.get_submodule(name), prefix=f"live_portrait/{prefix}")
    FILL["settle_spectral_norm"](networks.generator)
    return networks


def official(folder: Path, networks: Networks, autocast: bool) -> Contender:
    """The official networks with our weights."""
    if not (folder / "src" / "modules").is_dir():
        raise SystemExit(f"{folder}: has no folder src/modules; expected a checkout of KwaiVGI/LivePortrait")
    sys.path.insert(0, str(folder))
    settings = yaml.safe_load((folder / "src" / "config" / "models.yaml").read_text())["model_params"]
    theirs: dict[str, nn.Module] = {}
    for name, (module, kind, section) in OFFICIAL.items():
        theirs[name] = getattr(importlib.import_module(f"src.modules.{module}"), kind)(**settings[section]).eval()
        theirs[name].load_state_dict(networks.get_submodule(name).state_dict())
    return Contender(
        theirs["appearance"],
        lambda image: Motion.of(Heads(**theirs["motion"](image))),
        lambda volume, driving, source: theirs["warping"](volume, kp_driving=driving, kp_source=source)["out"],
        lambda warped: theirs["generator"](feature=warped),
        autocast,
    )


def layer_by_layer(networks: Networks) -> Contender:
    """Our networks as they are trained."""
    return Contender(
        networks.appearance,
        lambda image: Motion.of(networks.motion(image)),
        lambda volume, driving, source: networks.warping(volume, driving, source).out,
        networks.generator,
    )


def made_ready(networks: Networks, precision: Any) -> Contender:
    """Our networks made ready for inference."""
    engine = ready(networks, precision)
    path = engine.path
    return Contender(engine.volume, engine.motion, lambda *given: path.warping(*given).out, path.generator)


def work_of(contender: Contender, part: str, given: Mapping[str, Tensor]) -> Callable[[], Any]:
    """One run of a part. A batch of frames comes from one source, of which only F's result is known beforehand."""
    image, driving = given["image"], given["driving"]
    b = len(image)
    volume, source = given["volume"].expand(b, -1, -1, -1, -1), given["source"].expand(b, -1, -1)

    def frame() -> Tensor:
        contender.m(image)
        return contender.g(contender.w(volume, driving, source))

    works: dict[str, Callable[[], Any]] = {
        "F": lambda: contender.f(image),
        "M": lambda: contender.m(image),
        "W": lambda: contender.w(volume, driving, source),
        "G": partial(contender.g, contender.w(volume, driving, source)),
        "frame": frame,
    }
    return works[part]


def take_turns(
    contenders: Mapping[str, Contender], part: str, given: Mapping[str, Tensor], repeats: int
) -> dict[str, list[float]]:
    """Seconds of every contender; the first runs aren't counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    works: dict[str, Callable[[], Any]] = {}
    for turn in range(repeats + 1):
        for name, contender in contenders.items():
            with torch.inference_mode(), contender.within():
                work = works.setdefault(name, work_of(contender, part, given))
                begin = time.perf_counter()
                work()
                if turn:
                    seconds[name].append(time.perf_counter() - begin)
    return seconds


def inputs(batch: int, sizes: Sizes | None = None) -> dict[str, Tensor]:
    """Images and driving keypoints of a batch; a volume and keypoints of one source."""
    sizes = sizes or Sizes()

    def made(name: str, *shape: int, **bounds: float) -> Tensor:
        return torch.from_numpy(FILL["make_input"](f"live_portrait/{name}", shape, **bounds))

    return {
        "image": made("image", batch, 3, sizes.image, sizes.image, low=0, high=1),
        "driving": made("kp_driving", batch, sizes.keypoints, 3, low=-0.8, high=0.8),
        "source": made("kp_source", 1, sizes.keypoints, 3, low=-0.8, high=0.8),
        "volume": made("feature", 1, *sizes.volume),
    }


@torch.inference_mode()
def likeness(contenders: Mapping[str, Contender], exact: str) -> dict[str, float]:
    """PSNR of each contender's picture against that of `exact`, in dB."""
    given, pictures = inputs(1), {}
    for name, contender in contenders.items():
        with contender.within():
            volume = contender.f(given["image"])
            pictures[name] = contender.g(contender.w(volume, given["driving"], given["source"])).float()
    errors = {name: (picture - pictures[exact]).square().mean() for name, picture in pictures.items()}
    return {name: float(-10 * error.log10()) for name, error in errors.items()}


def contenders_of(peer: Path | None) -> dict[str, Contender]:
    """All of them by name, the one that the others are measured by first."""
    networks, half = filled(), has_bfloat16(torch.device("cpu"))
    found = {"official": official(peer, networks, False)} if peer else {"ours, layer by layer": layer_by_layer(networks)}
    if peer and half:
        found["official, bfloat16"] = official(peer, networks, True)
    found["ours"] = made_ready(networks, "float32")
    if half:
        found["ours, bfloat16"] = made_ready(networks, "bfloat16")
    return found


def main() -> int:
    """Take turns at every part, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, metavar="FOLDER")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    contenders = contenders_of(chosen.peer.resolve() if chosen.peer else None)
    first = next(iter(contenders))
    alike = likeness(contenders, first)
    say(f"| part | batch | method | seconds | {first} / it | PSNR, dB |\n| --- | ---: | --- | ---: | ---: | ---: |")
    rows: list[dict[str, Any]] = []
    for part in chosen.parts:
        for batch in PARTS[part]:
            seconds = take_turns(contenders, part, inputs(batch), chosen.repeats)
            for name, values in seconds.items():
                row = {"part": part, "batch": batch, "method": name, "seconds": middle(values), "fastest": min(values)}
                row |= {
                    "ratio": middle(seconds[first]) / middle(values),
                    "psnr": None if name == first else alike[name],
                    "repeats": chosen.repeats,
                }
                rows.append(row)
                shown = "" if name == first else f"{alike[name]:.1f}"
                say(f"| {part} | {batch} | {name} | {row['seconds']:.3f} | {row['ratio']:.2f} | {shown} |")
    keep("live_portrait", {"threads": chosen.threads, "measured against": first, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
