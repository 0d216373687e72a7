"""Fetching a model from a hub; its refusals in plain words."""

from __future__ import annotations

import os
from pathlib import Path

from clipdrift.errors import BackboneError, Fault
from clipdrift.hub.watch import Unfit, answers, watched

WANTED = ["*.json", "*.txt", "spiece.model"]
"""Configuration and tokenizer."""

OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Weights of open_clip's, which LAION and others keep beside the same ones for transformers; the
second is a file of torch's, fetched where there is no other. It is read without running it."""

OLD = "pytorch_model.bin"
"""The same of transformers': a file of torch's, fetched where there is no other."""
CONFIG = "open_clip_config.json"

NOT_TO_BE_USED = "Try again later, or take it from a hub that you trust"


def snapshot(repo_id: str, revision: str | None) -> Path:
    """Local folder of a hub repository at a revision, downloaded if it is not cached.

    Of a repository that has weights for open_clip alone it gives the configuration.

    Raises:
        BackboneError: offline, unreachable, unknown, gated, without weights, or of a hub that
            sends what would be written elsewhere, or hardly anything.
    """
    folder = _fetched(repo_id, revision, [*WANTED, "*.safetensors"], ["open_clip_model*"])
    if any(folder.glob("*.safetensors")) or (folder / CONFIG).is_file():
        return folder
    folder = _fetched(repo_id, revision, [*WANTED, OLD], [])
    if not (folder / OLD).is_file():
        raise _without_weights(repo_id, f"weights as safetensors, or {OLD}")
    return folder


def open_clip_snapshot(repo_id: str, revision: str | None) -> Path:
    """The same with weights for open_clip.

    Raises:
        BackboneError: as `snapshot`.
    """
    for name in OPEN_CLIP:
        folder = _fetched(repo_id, revision, [*WANTED, name], [])
        if (folder / name).is_file():
            return folder
    raise _without_weights(repo_id, f"weights for open_clip ({' or '.join(OPEN_CLIP)})")


def _without_weights(repo_id: str, expected: str) -> BackboneError:
    step = "Name a revision that has them, or convert the model"
    return _fault(repo_id, expected, "none at this revision", step)


def _fetched(repo_id: str, revision: str | None, wanted: list[str], not_wanted: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        with watched():
            folder = Path(
                snapshot_download(
                    repo_id,
                    revision=revision,
                    allow_patterns=wanted,
                    ignore_patterns=not_wanted,
                    local_files_only=not answers(repo_id, revision, "model"),
                )
            )
    except Unfit as unfit:
        raise _fault(repo_id, unfit.expected, unfit.got, NOT_TO_BE_USED) from None
    except HFValidationError:
        raise _fault(repo_id, "a folder or a hub id", repr(repo_id), "Check the spelling") from None
    except GatedRepoError:
        raise _fault(
            repo_id, "access", "a gated repository", "Accept its terms and set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise _fault(
            repo_id, "an existing revision", repr(revision), "Check backbone.revision"
        ) from None
    except RepositoryNotFoundError:
        raise _fault(
            repo_id,
            "a known hub id",
            "an unknown or private one",
            "Check the spelling, or set HF_TOKEN for a private one",
        ) from None
    except LocalEntryNotFoundError:
        raise _fault(
            repo_id,
            "a cached or reachable model",
            _why_unreachable(),
            "Connect to the internet, or name a local folder",
        ) from None
    except Exception as error:  # HTTP clients and file systems have many more
        raise _fault(
            repo_id,
            "a complete download",
            f"{type(error).__name__}: {' '.join(str(error).split())[:120]}",
            "Run again to resume it, or name a local folder",
        ) from None
    return folder


def _why_unreachable() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE set and no cached copy"
    return "no answer from the hub and no cached copy"


def _fault(repo_id: str, expected: str, got: str, next_step: str) -> BackboneError:
    return BackboneError(Fault(f"backbone {repo_id}", expected, got, next_step))
