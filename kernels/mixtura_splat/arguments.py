"""Check the arguments of `rasterize` and bring them to complete shapes [B, V, N, ..]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SH_COUNTS = (1, 4, 9, 16, 25)


@dataclass(frozen=True)
class Scene:
    """The arguments of a rendering with all axes; `restore` takes off the ones that were not given."""

    means: Tensor  # [B,N,3]
    quats: Tensor  # [B,N,4]
    scales: Tensor  # [B,N,3]
    opacities: Tensor  # [B,N]
    viewmats: Tensor  # [B,V,4,4]
    ks: Tensor  # [B,V,3,3]
    width: int
    height: int
    colors: Tensor | None  # [B,1 or V,N,C]
    sh: Tensor | None  # [B,N,K,3]
    sh_degree: int
    features: Tensor | None  # [B,1 or V,N,F]
    background: Tensor | None  # [B,V,C]
    counts: Tensor | None  # [B] int64
    has_scenes: bool
    has_views: bool

    @property
    def views(self) -> int:
        """V."""
        return self.viewmats.shape[1]

    def restore(self, tensor: Tensor) -> Tensor:
        """[B, V, ..] -> the leading axes that were given."""
        if not self.has_scenes:
            tensor = tensor.squeeze(0)
            if not self.has_views:
                tensor = tensor.squeeze(0)
        return tensor


def _shape(name: str, tensor: Tensor, wanted: tuple[int | str, ...]) -> None:
    fits = tensor.ndim == len(wanted) and all(isinstance(w, str) or s == w for s, w in zip(tensor.shape, wanted, strict=True))
    if not fits:
        text = ", ".join(map(str, wanted))
        raise ValueError(f"{name}: a tensor of shape [{text}] is needed, got {list(tensor.shape)}")


def _float(name: str, tensor: Tensor, like: Tensor | None = None) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: a tensor is needed, got {type(tensor).__name__}")
    if not tensor.is_floating_point():
        raise TypeError(f"{name}: a floating-point tensor is needed, got {tensor.dtype}. Remedy: {name}.float()")
    if like is not None and tensor.device != like.device:
        raise ValueError(f"{name} is on {tensor.device} but means is on {like.device}. Remedy: {name}.to(means.device)")
    wanted = torch.float64 if (tensor if like is None else like).dtype == torch.float64 else torch.float32
    return tensor.to(wanted)


def complete(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmats: Tensor, ks: Tensor, width: int, height: int,
    colors: Tensor | None, sh: Tensor | None, sh_degree: int | None, features: Tensor | None, background: Tensor | None,
    counts: Tensor | None,
) -> Scene:  # fmt: skip
    """See `rasterize` for what each argument is. Raises ValueError or TypeError naming the argument and the remedy."""
    if not (isinstance(width, int) and isinstance(height, int) and 0 < width < 2**20 and 0 < height < 2**20):
        raise ValueError(f"width and height: positive integers below 2^20 are needed, got {width!r} and {height!r}")
    means = _float("means", means)
    quats, scales, opacities, viewmats, ks = (
        _float(name, t, means)
        for name, t in (("quats", quats), ("scales", scales), ("opacities", opacities), ("viewmats", viewmats), ("Ks", ks))
    )
    if means.ndim not in (2, 3):
        raise ValueError(f"means: a tensor of shape [N, 3] or [B, N, 3] is needed, got {list(means.shape)}")
    has_scenes = means.ndim == 3
    has_views = has_scenes or viewmats.ndim != 2
    scene = (*means.shape[: means.ndim - 2], means.shape[-2])
    view = (*scene[:-1], *(["V"] if has_views else []))
    _shape("means", means, (*scene, 3))
    _shape("quats", quats, (*scene, 4))
    _shape("scales", scales, (*scene, 3))
    _shape("opacities", opacities, scene)
    _shape("viewmats", viewmats, (*view, 4, 4))
    _shape("Ks", ks, (*viewmats.shape[:-2], 3, 3))
    if not has_scenes:
        means, quats, scales, opacities, viewmats, ks = (t[None] for t in (means, quats, scales, opacities, viewmats, ks))
    if not has_views:
        viewmats, ks = viewmats[:, None], ks[:, None]
    b, n, v = *means.shape[:2], viewmats.shape[1]
    if b == 0 or v == 0:
        raise ValueError(f"viewmats: at least one scene and one camera are needed, got B={b}, V={v}")
    lead = (b, v, n, has_scenes)
    colors, sh, degree = _appearance(colors, sh, sh_degree, means, lead)
    if features is not None:
        features = _per_gaussian("features", _float("features", features, means), lead)
    if background is not None:
        channels = 3 if colors is None else colors.shape[3]
        background = _background(_float("background", background, means), channels, lead)
    if counts is not None:
        counts = _counts(counts, means)
    return Scene(
        means, quats, scales, opacities, viewmats, ks, width, height, colors, sh, degree, features, background, counts,
        has_scenes, has_views,
    )  # fmt: skip


def _background(background: Tensor, channels: int, lead: tuple[int, int, int, bool]) -> Tensor:
    b, v, _, has_scenes = lead
    whole = (b, v, channels) if has_scenes else (v, channels)
    if background.ndim == 0 or tuple(background.shape) not in (whole, whole[-2:], whole[-1:]):
        given = list(background.shape)
        raise ValueError(f"background: [C], [V, C] or [B, V, C] with B={b}, V={v}, C={channels} is needed, got {given}")
    return background.expand(b, v, channels)


def _counts(counts: Tensor, means: Tensor) -> Tensor:
    if not isinstance(counts, Tensor) or counts.is_floating_point() or counts.dtype == torch.bool:
        raise TypeError("counts: a tensor of integers is needed. Remedy: torch.tensor([...])")
    _shape("counts", counts, means.shape[:1])
    return counts.to(means.device, torch.int64)


def _per_gaussian(name: str, tensor: Tensor, lead: tuple[int, int, int, bool]) -> Tensor:
    """[N,C], [V,N,C], [B,N,C] or [B,V,N,C] -> [B, 1 or V, N, C]."""
    b, v, n, has_scenes = lead
    given = list(tensor.shape)
    if not has_scenes:
        tensor = tensor[None]
    if tensor.ndim == 3:
        tensor = tensor[:, None]
    if tensor.ndim != 4 or tensor.shape[0] != b or tensor.shape[1] not in (1, v) or tensor.shape[2] != n:
        raise ValueError(f"{name}: [B, N, C] or [B, V, N, C] (B as in means) with B={b}, V={v}, N={n} is needed, got {given}")
    return tensor


def _appearance(
    colors: Tensor | None, sh: Tensor | None, sh_degree: int | None, means: Tensor, lead: tuple[int, int, int, bool]
) -> tuple[Tensor | None, Tensor | None, int]:
    if (colors is None) == (sh is None):
        raise ValueError("give either colors or sh (spherical harmonics), not both and not neither")
    if colors is not None:
        if sh_degree is not None:
            raise ValueError("sh_degree goes with sh, but colors were given")
        return _per_gaussian("colors", _float("colors", colors, means), lead), None, 0
    assert sh is not None
    b, _, n, has_scenes = lead
    sh = _float("sh", sh, means)
    _shape("sh", sh, (*([b] if has_scenes else []), n, "K", 3))
    sh = sh if has_scenes else sh[None]
    k = sh.shape[2]
    if k not in SH_COUNTS:
        raise ValueError(f"sh: {SH_COUNTS} coefficients make degree 0 to 4, got {k}")
    degree = SH_COUNTS.index(k) if sh_degree is None else sh_degree
    if not 0 <= degree <= SH_COUNTS.index(k):
        raise ValueError(f"sh_degree: 0 to {SH_COUNTS.index(k)} with {k} coefficients, got {sh_degree}")
    return None, sh, degree


def check_finite(**arguments: Tensor | None) -> None:
    """Raise ValueError that names the first argument with a NaN or an infinity, and where it is."""
    for name, value in arguments.items():
        if value is not None and not (finite := torch.isfinite(value)).all():
            where = (~finite).nonzero()[0].tolist()
            raise ValueError(f"{name}: {int((~finite).sum())} values are not finite, the first at index {where}")
