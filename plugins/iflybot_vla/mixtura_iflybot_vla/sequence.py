"""Token sequences of iFlyBot-VLA: chat template, robot samples, question-answer samples (report section 3).

Every turn is `<|im_start|>ROLE\\nCONTENT<|im_end|>\\n`. A robot sample asks "What action should the robot take to
...?" and answers with latent codes and FAST tokens; a QA sample carries its own turns. `TokenSequence` holds one
sample, `pad` stacks several on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mixtura_iflybot_vla.config import IFlyBotConfig
from mixtura_iflybot_vla.vocabulary import Vocabulary

IGNORE = -100
TEXT, LATENT, FAST = 1, 2, 3
"""Kinds of trained tokens: which loss a label counts in."""

SYSTEM_PROMPT = "You are a helpful assistant."
HEADER = 3
"""Tokens that open the assistant turn and are never trained (start marker, role, newline)."""


def question(instruction: str) -> str:
    """What a robot is asked (sheet section 3.2)."""
    return f"What action should the robot take to {instruction.lower()}?"


@dataclass
class TokenSequence:
    """One sample: `ids`, `labels` (IGNORE where untrained), `kinds`, `mask` (False: hidden from attention), all (S,).

    `cut` is the number of leading tokens whose keys and values the action expert may see.
    """

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    cut: int = 0

    def add(self, ids: Sequence[int], kind: int = 0, visible: bool = True) -> None:
        """Append tokens; `kind` 0 leaves them untrained."""
        self.ids += ids
        self.labels += list(ids) if kind else [IGNORE] * len(ids)
        self.kinds += [kind] * len(ids)
        self.mask += [visible] * len(ids)


class SequenceBuilder:
    """Builds token sequences for one vocabulary and configuration."""

    def __init__(self, config: IFlyBotConfig, vocabulary: Vocabulary) -> None:
        self.config, self.vocabulary = config, vocabulary
        self._plain: dict[str, list[int]] = {}

    def _text(self, string: str) -> list[int]:
        """Ids of a text; short template texts repeat, so they are kept."""
        if string not in self._plain:
            if len(self._plain) > 10_000:
                self._plain.clear()
            self._plain[string] = self.vocabulary.text(string)
        return self._plain[string]

    def _open(self, sequence: TokenSequence, role: str) -> None:
        sequence.add([*self.vocabulary.mark("<|im_start|>"), *self._text(f"{role}\n")])

    def _close(self, sequence: TokenSequence, kind: int = 0) -> None:
        """End of a turn. The stop token is trained with `kind`; the newline after it only by the published code."""
        newline = kind if self.config.compat == "official" else 0
        sequence.add(self.vocabulary.mark("<|im_end|>"), kind)
        sequence.add(self._text("\n"), newline)

    def _image(self, sequence: TokenSequence, visible: bool = True) -> None:
        mark = self.vocabulary.mark
        pads = mark("<|image_pad|>") * self.config.view_tokens
        sequence.add([*mark("<|vision_start|>"), *pads, *mark("<|vision_end|>")], visible=visible)

    def _prompt(self, instruction: str, present: Sequence[bool]) -> TokenSequence:
        """System and user turns of a robot sample, and the opening of the assistant's."""
        config, mark, sequence = self.config, self.vocabulary.mark, TokenSequence()
        asked = question(instruction)
        latent = mark("<lam_act>") if config.latent else []
        fast = mark("<|FASTpredict|>") if config.fast else []
        self._open(sequence, "system")
        sequence.add(self._text(SYSTEM_PROMPT))
        self._close(sequence)
        self._open(sequence, "user")
        if config.prompt == "old":
            sequence.add([*latent, *fast])
        for visible in present:
            self._image(sequence, visible)
        if config.prompt == "old":
            sequence.add([*mark("<|StatePad|>"), *self._text(asked)])
        else:
            sequence.add([*self._text(asked), *latent, *mark("<|StatePad|>"), *fast])
        self._close(sequence)
        self._open(sequence, "assistant")
        sequence.cut = len(sequence.ids)
        return sequence

    def prompt(self, instruction: str, present: Sequence[bool], codes: Sequence[int] | None = None) -> TokenSequence:
        """What the model reads before it writes; ends with `<|LAPstart|>` when latent codes are on, or with given `codes`."""
        sequence = self._prompt(instruction, present)
        if self.config.latent:
            sequence.add(self.vocabulary.mark("<|LAPstart|>"))
            sequence.add([self.vocabulary.code_base + int(code) for code in codes or ()])
            sequence.cut = len(sequence.ids)
        return sequence

    def before_fast(self, instruction: str, present: Sequence[bool], codes: Sequence[int] | None) -> TokenSequence:
        """What stands before the FAST tokens of a robot sample, with the codes that were chosen (None: the head is off)."""
        sequence = self.prompt(instruction, present, codes)
        if codes is not None:
            sequence.add(self.vocabulary.mark("<|LAPend|>"))
        sequence.add(self.vocabulary.mark("<|FASTstart|>"))
        return sequence

    def robot(
        self, instruction: str, present: Sequence[bool], codes: Sequence[int] | None, fast: Sequence[int] | None
    ) -> TokenSequence:
        """A training sample: `codes` latent action codes and `fast` FAST ids (None where the head is off)."""
        mark, base, sequence = self.vocabulary.mark, self.vocabulary, self._prompt(instruction, present)
        kind = 0
        if codes is not None:
            kind = LATENT
            sequence.add(mark("<|LAPstart|>"), LATENT)
            sequence.add([*(base.code_base + int(code) for code in codes)], LATENT)
            sequence.cut = len(sequence.ids)
            sequence.add(mark("<|LAPend|>"), LATENT)
        if fast is not None:
            kind = FAST
            tokens = [*mark("<|FASTstart|>"), *(base.fast_base + int(token) for token in fast), *mark("<|FASTend|>")]
            sequence.add(tokens, FAST)
        if kind:
            self._close(sequence, kind if self.config.compat == "official" else 0)
        return sequence

    def asked(self, text: str) -> TokenSequence:
        """A question that waits for its answer: system and user turns, and the opening of the assistant's."""
        sequence = self.conversation([{"from": "human", "value": text}])
        self._open(sequence, "assistant")
        sequence.cut = len(sequence.ids)
        return sequence

    def conversation(self, turns: Sequence[dict[str, str]]) -> TokenSequence:
        """A QA sample: `turns` of {from: human|gpt, value}; `<image>` marks where an image goes. Loss on gpt turns."""
        sequence = TokenSequence()
        self._open(sequence, "system")
        sequence.add(self._text(SYSTEM_PROMPT))
        self._close(sequence)
        for turn in turns:
            answer = turn["from"] == "gpt"
            self._open(sequence, "assistant" if answer else "user")
            pieces = turn["value"].split("<image>")
            for i, piece in enumerate(pieces):
                if i:
                    self._image(sequence)
                text = piece.strip("\n") if len(pieces) > 1 else piece
                sequence.add(self._text(text) if text else [], TEXT if answer else 0)
            self._close(sequence, TEXT if answer else 0)
        sequence.cut = len(sequence.ids)
        return sequence


def pad(sequences: Sequence[TokenSequence]) -> dict[str, np.ndarray]:
    """Stack on the right: ids, labels, kinds int64 (B, S), mask bool (B, S), cut int64 (B,)."""
    length, rows = max(len(s.ids) for s in sequences), len(sequences)
    ids = np.zeros((rows, length), np.int64)
    labels = np.full((rows, length), IGNORE, np.int64)
    kinds = np.zeros((rows, length), np.int64)
    mask = np.zeros((rows, length), bool)
    for row, s in enumerate(sequences):
        n = len(s.ids)
        ids[row, :n], labels[row, :n], kinds[row, :n], mask[row, :n] = s.ids, s.labels, s.kinds, s.mask
    return {"ids": ids, "labels": labels, "kinds": kinds, "mask": mask, "cut": np.array([s.cut for s in sequences])}
