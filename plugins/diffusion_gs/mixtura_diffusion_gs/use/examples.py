"""Pictures that a package ships, to try inference with: icons of Debian's sweethome3d-furniture.

    python -m mixtura_diffusion_gs.use.examples out/

They were drawn by another program than the training data, from other sides and in other light, and show models that
`furniture_views` never trains on.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from mixtura.errors import MixturaError
from mixtura_diffusion_gs.furniture.models import FurnitureError, find

EXAMPLES = {
    "sofa": "BlendSwap-CC-0#sofa2",
    "chair": "BlendSwap-CC-BY#childChair",
    "lamp": "Scopia#little_lamp1",
}
"""Name -> key of the model whose icon it is."""


def write_example(name: str, folder: Path) -> Path:
    """An example as `folder`/NAME.png (128 x 128, RGBA). Raises FurnitureError for unknown names and without the package."""
    if name not in EXAMPLES:
        raise FurnitureError(f"no example is called {name!r}: take one of {', '.join(EXAMPLES)}")
    model = find(EXAMPLES[name])
    icon = f"{model.archive.stem}/{model.key.rpartition('#')[2]}.png".lower()
    with zipfile.ZipFile(model.archive) as archive:
        files = {path.lower(): path for path in archive.namelist()}
        if icon not in files:
            raise FurnitureError(f"{model.archive} has no {icon}; reinstall sweethome3d-furniture")
        content = archive.read(files[icon])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    path.write_bytes(content)
    return path


def main(words: list[str]) -> None:
    """Write all examples to the folder that is named."""
    if len(words) != 1:
        sys.exit("usage: python -m mixtura_diffusion_gs.use.examples FOLDER")
    try:
        written = [write_example(name, Path(words[0])) for name in EXAMPLES]
    except MixturaError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write("".join(f"{path}\n" for path in written))


if __name__ == "__main__":
    main(sys.argv[1:])
