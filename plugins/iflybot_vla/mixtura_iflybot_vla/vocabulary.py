"""Which token has which id: text, FAST tokens, latent codes and markers in one vocabulary.

`Vocabulary.train` fits a byte-level BPE on the data's own text: ids 0.. are text, then the FAST tokens, then the
markers, so ids do not move when the text changes. `Vocabulary.published` reads a Qwen2.5-VL tokenizer folder:
markers by name where the tokenizer knows them, else the published ids; FAST token k is id 100000 + k.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from mixtura.errors import DataError

MARKERS = (
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|StatePad|>",
    "<lam_act>", "<|FASTpredict|>", "<|LAPstart|>", "<|LAPend|>", "<|FASTstart|>", "<|FASTend|>",
)  # fmt: skip
PUBLISHED_IDS = {
    "<|im_start|>": 151644, "<|im_end|>": 151645, "<|vision_start|>": 151652, "<|vision_end|>": 151653,
    "<|image_pad|>": 151655, "<|LAPstart|>": 151694, "<|LAPend|>": 151695, "<|FASTpredict|>": 151696,
    "<|FASTstart|>": 151697, "<|FASTend|>": 151698, "<|StatePad|>": 151699, "<ACT_PAD>": 151716,
}  # fmt: skip
PUBLISHED_FAST_BASE, PUBLISHED_SIZE = 100_000, 151_936


def code_names(codes: int) -> list[str]:
    """Names of the latent code tokens."""
    return [f"<ACT_{i}>" for i in range(codes)]


@dataclass(frozen=True)
class Vocabulary:
    """Ids of all tokens: `marker[name]`, `code_base + k`, `fast_base + k`, `text(string)`; `size` embedding rows."""

    tokenizer: Tokenizer
    marker: dict[str, int]
    code_base: int
    fast_base: int
    size: int

    @staticmethod
    def train(texts: Iterable[str], text_vocab: int, fast_vocab: int, codes: int) -> Vocabulary:
        """Fit a tokenizer of at most `text_vocab` tokens on the texts (order does not matter)."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(vocab_size=text_vocab, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(sorted(set(texts)), trainer)
        return Vocabulary._lay_out(tokenizer, text_vocab, fast_vocab, codes)

    @staticmethod
    def _lay_out(tokenizer: Tokenizer, text_vocab: int, fast_vocab: int, codes: int) -> Vocabulary:
        base = text_vocab + fast_vocab
        marker = {name: base + i for i, name in enumerate(MARKERS)}
        code_base = base + len(MARKERS)
        return Vocabulary(tokenizer, marker, code_base, text_vocab, vocabulary_size(text_vocab, fast_vocab, codes))

    @staticmethod
    def load(path: Path, text_vocab: int, fast_vocab: int, codes: int) -> Vocabulary:
        """Read back what `save` wrote."""
        return Vocabulary._lay_out(Tokenizer.from_file(str(path)), text_vocab, fast_vocab, codes)

    @staticmethod
    def published(folder: Path, codes: int) -> Vocabulary:
        """The tokenizer of a published checkpoint (`tokenizer.json` in `folder`)."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise DataError(f"{path}: no such file; vlm.tokenizer must name the folder of a published tokenizer")
        tokenizer = Tokenizer.from_file(str(path))
        marker = {name: tokenizer.token_to_id(name) for name in MARKERS}
        known = {name: PUBLISHED_IDS.get(name) if value is None else value for name, value in marker.items()}
        code_base = tokenizer.token_to_id("<ACT_0>")
        missing = [name for name, value in known.items() if value is None and name != "<lam_act>"]
        if code_base is None or missing:
            raise DataError(f"{path}: has no token {(missing or ['<ACT_0>'])[0]}; this is not an iFlyBot-VLA tokenizer")
        ids = {name: value for name, value in known.items() if value is not None}
        return Vocabulary(tokenizer, ids, code_base, PUBLISHED_FAST_BASE, PUBLISHED_SIZE)

    def save(self, path: Path) -> None:
        """Write the text tokenizer; the rest follows from the configuration."""
        self.tokenizer.save(str(path))

    def text(self, string: str) -> list[int]:
        """Ids of plain text; markers inside it are text like any other."""
        return list(self.tokenizer.encode(string, add_special_tokens=False).ids)

    def mark(self, name: str) -> list[int]:
        """Id of a marker as a list; a flag that the tokenizer has no token for (`<lam_act>`) is spelled out."""
        return [self.marker[name]] if name in self.marker else self.text(name)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the text tokens among `ids`."""
        known = self.tokenizer.get_vocab_size()
        return str(self.tokenizer.decode([i for i in ids if i < known and i < self.fast_base]))


def vocabulary_size(text_vocab: int, fast_vocab: int, codes: int) -> int:
    """Embedding rows of a trained vocabulary, rounded up to a multiple of 8."""
    return -(-(text_vocab + fast_vocab + len(MARKERS) + codes) // 8) * 8
