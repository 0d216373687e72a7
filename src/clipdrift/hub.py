"""Asking a hub, and fetching a model from it; its refusals in plain words."""

from __future__ import annotations

import os
from pathlib import Path

from clipdrift.errors import BackboneError, Fault

WANTED = ["*.json", "*.safetensors", "*.txt", "spiece.model"]
"""Configuration, weights, tokenizer. Pickled weights are never fetched."""

NOT_WANTED = ["open_clip*"]
"""The same weights once more, as LAION and others keep them beside those for transformers."""


def snapshot(repo_id: str, revision: str | None) -> Path:
    """Local folder of a hub repository at a revision, downloaded if it is not cached.

    Raises:
        BackboneError: offline, unreachable, unknown, gated, or without safetensors.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(
            snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=WANTED,
                ignore_patterns=NOT_WANTED,
                local_files_only=not answers(repo_id, revision, "model"),
            )
        )
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
    if not any(folder.glob("*.safetensors")):
        raise _fault(
            repo_id,
            "weights as safetensors",
            "none at this revision",
            "Name a revision that has them, or convert the model",
        )
    return folder


def answers(repo_id: str, revision: str | None, repo_type: str) -> bool:
    """Whether the hub says anything about a repository within HF_HUB_ETAG_TIMEOUT seconds.

    Asked before every download, because the first request of a download has no time limit of its
    own: behind a firewall that drops packets it would wait for ever.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wait = constants.HF_HUB_ETAG_TIMEOUT
    try:
        HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision, timeout=wait)
    except (HfHubHTTPError, HFValidationError):
        return True  # a refusal is an answer; the download meets it again, and it is told there
    except Exception:  # no connection, a timeout, offline: HTTP clients have names of their own
        return False
    return True


def _why_unreachable() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE set and no cached copy"
    return "no answer from the hub and no cached copy"


def _fault(repo_id: str, expected: str, got: str, next_step: str) -> BackboneError:
    return BackboneError(Fault(f"backbone {repo_id}", expected, got, next_step))
