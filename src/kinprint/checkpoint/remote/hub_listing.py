"""What the Hub says of a repository, checked before it is believed; what its client raises; what its cache holds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kinprint.checkpoint.faults import fault, natural, network_fault, shown
from kinprint.checkpoint.folder import plain_name
from kinprint.checkpoint.remote.http import ABSENT, PASSING, REFUSED
from kinprint.checkpoint.remote.transfer import Interrupted

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOG_IN = "log in with 'hf auth login' or set HF_TOKEN; a gated model asks for its terms to be accepted on its page"

MAX_FILES = 100_000
"""Most files that a listing may have."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as the Hub lists it.

    Attributes:
        size: Length in bytes.
        sha256: Digest of its content, for files kept in LFS or Xet.
        blob: Git's id: SHA-1 of the content, or of the pointer.
    """

    size: int
    sha256: str | None
    blob: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository at one commit.

    Attributes:
        repo: ``org/name``.
        commit: The commit, 40 hexadecimal digits.
        files: What it holds, by path.
        notes: How it was resolved, where that is not by asking the Hub.
        offline: Why nothing may be fetched; None if it may.
    """

    repo: str
    commit: str
    files: Mapping[str, Listed]
    notes: tuple[str, ...] = ()
    offline: str | None = None


def tree(api: HfApi, repo: str, commit: str) -> list[tuple[object, object, object, object]]:
    """List a commit by the Hub's tree."""
    from huggingface_hub.hf_api import RepoFile

    found = api.list_repo_tree(repo, recursive=True, revision=commit)
    return [(entry.path, entry.size, entry.blob_id, entry.lfs) for entry in found if isinstance(entry, RepoFile)]


def checked(entries: list[tuple[Any, Any, Any, Any]], where: str) -> dict[str, Listed]:
    """Return the files of a listing; paths that no system could hold as they are, or that lead out, are left out.

    Raises:
        NetworkError: It states no believable sizes or digests.
    """
    files: dict[str, Listed] = {}
    for path, size, blob, lfs in entries[:MAX_FILES]:
        if not isinstance(path, str) or not all(plain_name(part) for part in path.split("/")):
            continue
        digest: object = getattr(lfs, "sha256", None)
        length: object = getattr(lfs, "size", size) if lfs is not None else size
        if not natural(length) or not isinstance(blob, str):
            raise network_fault(where, f"lists {shown(path)} without a believable size", "check HF_ENDPOINT")
        known = isinstance(digest, str) and _SHA256.fullmatch(digest) is not None
        if digest is not None and not known:
            raise network_fault(where, f"lists {shown(path)} with a malformed SHA-256", "check HF_ENDPOINT")
        files[path] = Listed(length, cast("str | None", digest), blob)
    return files


def translated(where: str, call: Callable[[], Value]) -> Value:
    """Turn what the Hub's client raises into what this layer raises."""
    import httpx2
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return call()
    except GatedRepoError as error:
        raise fault(where, "is gated, and may not be read", LOG_IN) from error
    except RepositoryNotFoundError as error:
        what = "is no file or folder here, and no model of the Hub that may be read"
        raise fault(where, what, f"check the name; if it is private, {LOG_IN}") from error
    except RevisionNotFoundError as error:
        raise fault(where, "has no such revision", "check what stands after the @") from error
    except DisabledRepoError as error:
        raise fault(where, "was disabled by the Hub", "use a copy of the model") from error
    except HFValidationError as error:
        raise fault(where, "is no name of a model", "write org/name") from error
    except HfHubHTTPError as error:
        raise _of_status(where, error.response.status_code, error.response.headers.get("Retry-After", "")) from error
    except (httpx2.HTTPError, TimeoutError, OSError) as error:
        raise Interrupted(str(error) or type(error).__name__) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise network_fault(where, "answers what no Hub answers", "check HF_ENDPOINT") from error


def _of_status(where: str, status: int, retry_after: str) -> Exception:
    if status in PASSING:
        return Interrupted(f"the server answers {status}", float(retry_after) if retry_after.isdigit() else None)
    if status in ABSENT:
        return fault(where, "is no file or folder here, and no model of the Hub", "check the name")
    if status in REFUSED:
        return fault(where, f"may not be read (the Hub answers {status})", LOG_IN)
    return network_fault(where, f"the Hub answers {status}")


def is_offline() -> bool:
    """Tell whether the user wants no network, as huggingface_hub reads it or as the environment says now."""
    from huggingface_hub import is_offline_mode

    return is_offline_mode() or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _hf_cache(repo: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")


def commit_in_hf_cache(repo: str, revision: str) -> str | None:
    """Return the commit that the Hub's cache last knew for a revision."""
    if not all(plain_name(part) for part in revision.split("/")):
        return None
    try:
        return (_hf_cache(repo) / "refs" / revision).read_text("utf-8").strip()
    except (OSError, ValueError):
        return None


def files_in_hf_cache(repo: str, commit: str) -> dict[str, Listed]:
    """List what the Hub's cache holds of a commit."""
    top = _hf_cache(repo) / "snapshots" / commit
    found: dict[str, Listed] = {}
    for path in top.rglob("*") if top.is_dir() else ():
        if path.is_file():
            found[path.relative_to(top).as_posix()] = Listed(path.stat().st_size, None, "")
    return found
