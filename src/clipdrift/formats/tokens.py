"""The tokenizer that open_clip reads a model's texts with, in a form that transformers loads.

open_clip cleans a text before its tokenizer sees it; here the tokenizer cleans it. What `ftfy` and
HTML's entities would mend is left as it is written: prompts of classes hold neither.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from clipdrift.errors import BackboneError, Fault, brief, is_failure
from clipdrift.formats.config import BPE_SIZE

TOKENIZERS = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "spiece.model")
"""A folder with one of these has a tokenizer of its own."""
START, END = "<|startoftext|>", "<|endoftext|>"
CLEANED = {"lower", "whitespace", "canonicalize"}
PUNCTUATION = r"[!-/:-@\[-`{-~]"
"""ASCII's, as `string.punctuation` has it."""


def write_tokenizer(text_cfg: Mapping[str, Any], source: Path, out: Path, where: str) -> None:
    """Write the tokenizer of a `text_cfg` into a folder.

    Args:
        source: folder of the model, with the files of its tokenizer where it is not OpenAI's.
        where: what faults call it.

    Raises:
        BackboneError: of a tokenizer that is not there, or is used in a way that is not known here.
    """
    name, kwargs = text_cfg.get("hf_tokenizer_name"), text_cfg.get("tokenizer_kwargs") or {}
    clean = kwargs.get("clean", "whitespace" if name else "lower") if _fits(kwargs) else None
    mode = text_cfg.get("tokenizer_mode")
    if clean not in CLEANED or mode:
        got = brief(mode or kwargs)
        expected = f"no tokenizer_mode, and clean alone: {', '.join(sorted(CLEANED))}"
        step = "Convert the model with what made it"
        raise BackboneError(Fault(f"{where} text_cfg.tokenizer_kwargs", expected, got, step))
    if name and not any((source / file).is_file() for file in TOKENIZERS):
        expected, got = f"the files of its tokenizer, {brief(name)}", "none"
        raise BackboneError(Fault(where, expected, got, "Copy them beside the weights"))
    try:
        found = _loaded(source) if name else _openai()
        if found.is_fast:
            found = _cleaning(found, str(clean))
        elif clean != "canonicalize":  # which SigLIP's own does by itself
            raise ValueError(f"{type(found).__name__}, which cannot be told to clean by {clean}")
        found.model_max_length = text_cfg.get("context_length", 77)
        found.save_pretrained(out)
    except BaseException as error:  # tokenizers raise no narrower kind, and panic
        if not is_failure(error):
            raise
        got = " ".join(str(error).split())[:160]
        step = "Restore the files of the tokenizer"
        raise BackboneError(Fault(where, "a tokenizer that loads", got, step)) from None


def is_openai(tokenizer: Any) -> bool:
    """Whether a tokenizer of transformers' is OpenAI's byte-pair encoding."""
    from transformers import CLIPTokenizer

    if not isinstance(tokenizer, CLIPTokenizer) or len(tokenizer) != BPE_SIZE:
        return False
    known: dict[str, int] = _openai().get_vocab()
    return bool(tokenizer.get_vocab() == known)


def _fits(kwargs: Any) -> bool:
    return isinstance(kwargs, Mapping) and set(kwargs) <= {"clean"}


def _loaded(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _openai() -> Any:
    """OpenAI's byte-pair encoding of 49,408 tokens, from its merges in order."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    path = files("clipdrift").joinpath("assets", "clip-bpe", "merges.txt.xz")
    lines = lzma.decompress(path.read_bytes()).decode("utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines]
    letters = _in_order(ByteLevel.alphabet())
    words = [*letters, *(f"{one}</w>" for one in letters), *map("".join, merges), START, END]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=merges)


def _in_order(alphabet: list[str]) -> list[str]:
    """Letters that stand for bytes: those that print, by their code, then those of other bytes."""
    return sorted(alphabet, key=lambda letter: (ord(letter) > 255, ord(letter)))


def _cleaning(tokenizer: Any, clean: str) -> Any:
    """A tokenizer that cleans a text before it normalises it as it did before."""
    from tokenizers import Regex, normalizers
    from transformers import CLIPTokenizer, PreTrainedTokenizerFast

    if isinstance(tokenizer, CLIPTokenizer) and clean in ("lower", "whitespace"):
        return tokenizer  # lowers case, and takes whitespace for one blank, by itself
    steps: list[Any] = []
    if clean == "canonicalize":
        steps += [normalizers.Replace("_", " "), normalizers.Replace(Regex(PUNCTUATION), "")]
    if clean != "whitespace":
        steps.append(normalizers.Lowercase())
    steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    backend = tokenizer.backend_tokenizer
    own = [backend.normalizer] if backend.normalizer is not None else []
    backend.normalizer = normalizers.Sequence([*steps, *own])
    special = {
        key: str(value)
        for key, value in tokenizer.special_tokens_map.items()
        if isinstance(value, str)
    }
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)
