"""mixtura-splat: differentiable Gaussian splatting for CPU and CUDA.

`rasterize` renders; `ops` has its stages, `reference` the same in plain PyTorch. `python -m mixtura_splat.doctor` says
which kernels are active and why.
"""

from mixtura_splat.backend import BackendMissing
from mixtura_splat.gaussians import Gaussians
from mixtura_splat.rasterize import Info, Rendering, rasterize
from mixtura_splat.ssim import ssim
from mixtura_splat.version import VERSION

__version__ = VERSION

__all__ = ["BackendMissing", "Gaussians", "Info", "Rendering", "__version__", "rasterize", "ssim"]
