"""Prompts become pictures through a pipeline that diffusers saved, a tiny one with random weights; wrong folders are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mixtura.errors import ConfigError, DataError
from mixtura_diffusion_gs.use.text import open_pipeline, picture_of, read_prompt

diffusers = pytest.importorskip("diffusers")
CHANNELS = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion pipeline of a few thousand weights, saved."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("pipeline")
    words = [
        "<|startoftext|>",
        "<|endoftext|>",
        *(letter + end for letter in "abcdefghijklmnopqrstuvwxyz," for end in ("", "</w>")),
    ]
    (path / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(path, model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, eos_token_id=1
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        **CHANNELS,
    )
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, **CHANNELS
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae,
        CLIPTextModel(text),
        tokenizer,
        unet,
        diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        None,
        None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(path / "saved")
    return path / "saved"


def test_a_saved_pipeline_draws_prompts_the_same_for_the_same_seed(folder: Path) -> None:
    pipeline = open_pipeline(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    one, again, other = (picture_of("a red chair", pipeline, seed, "blur") for seed in (1, 1, 2))
    assert (one.shape, one.dtype) == ((16, 16, 4), np.uint8)
    assert (one[..., 3] == 255).all()
    assert (one == again).all()
    assert (one != other).any()


def wrong(folder: Path, kind: str) -> Path:
    """A folder that holds no such pipeline."""
    folder.mkdir()
    if kind == "class":
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "NoPipeline", "_diffusers_version": "0.36.0"}))
    if kind == "unconditional":
        unet = diffusers.UNet2DModel(
            sample_size=8, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, **CHANNELS
        )
        diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler()).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "said"),
    [("empty", "no model_index.json"), ("class", "can't be opened"), ("unconditional", "DDIMPipeline takes no prompt")],
)
def test_folders_without_a_text_to_image_pipeline_are_refused(kind: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        open_pipeline(str(wrong(tmp_path / "pipeline", kind)))


def test_a_prompt_needs_a_pipeline() -> None:
    with pytest.raises(ConfigError, match="pipeline=FOLDER"):
        open_pipeline(None)


class Result:
    """What pipelines return."""

    def __init__(self, images: list[Any]) -> None:
        self.images = images


def test_a_function_may_draw_too() -> None:
    picture = picture_of("a chair", lambda prompt: Result([Image.new("L", (8, 6), 9)]), 0)
    assert picture.shape == (6, 8, 4)


def test_what_is_no_picture_is_refused_and_unknown_settings_too() -> None:
    with pytest.raises(DataError, match="gave no picture for 'a chair'"):
        picture_of("a chair", lambda prompt: Result([]), 0)
    with pytest.raises(ConfigError, match="takes no negative_prompt"):
        picture_of("a chair", lambda prompt: Result([]), 0, "blur")


def test_prompts_are_read_as_one_line(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("  a red\n chair ")
    assert read_prompt(path) == "a red chair"
    for content, said in ((b" \n", "holds no prompt"), (b"\xff\xfe", "can't be read as UTF-8")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=said):
            read_prompt(path)
