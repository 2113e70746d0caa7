"""Tells the jobs that this user has made from those that come from elsewhere: an HMAC with a key outside of the project.

The signature is in `job.json`, over the config and all other fields, such as the project and the overrides; in the
`queue.json` of a sweep it is over the rest of that file. The key, `$XDG_STATE_HOME/regente/key` or
`~/.local/state/regente/key`, never leaves the user's folder.
"""

import hmac
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

SIZE = 32  # bytes of the key


def key_file() -> Path:
    """Where the key of this user lies."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "regente" / "key"


def sign(content: Any) -> str:
    """The signature of a job that is being made; empty where no key can be kept, as without a home folder."""
    return _signature(content, _key() or _new_key())


def keeps_keys() -> bool:
    """Whether a key can be kept; without a home folder no job is known to be the user's own."""
    return bool(_key() or _new_key())


def why_not_own(content: Any, signature: str) -> str:
    """Why a job is not known to be made by this user; empty if it is."""
    if not signature:
        return "it is not signed"
    if not (key := _key()):
        return "the key that signed it is not on this machine"
    if hmac.compare_digest(_signature(content, key).encode(), signature.encode(errors="surrogatepass")):
        return ""
    return "another user made it, or it was changed since"


def _signature(content: Any, key: bytes) -> str:
    text = json.dumps(content, sort_keys=True)
    return hmac.new(key, text.encode(errors="surrogatepass"), "sha256").hexdigest() if key else ""


def _key() -> bytes:
    """The key; empty if there is none that this user alone can read."""
    with suppress(OSError, RuntimeError):  # RuntimeError: no home folder
        with key_file().open("rb") as file:
            facts, content = os.fstat(file.fileno()), file.read(SIZE + 1)
        if facts.st_uid == os.getuid() and not facts.st_mode & 0o077 and len(content) == SIZE:
            return content
    return b""


def _new_key() -> bytes:
    """A key, made whole or not at all; where another process was faster, that one's."""
    with suppress(OSError, RuntimeError):
        file = key_file()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = file.with_name(f".key.{secrets.token_hex(4)}")
        try:
            draft.touch(0o600, exist_ok=False)
            draft.write_bytes(secrets.token_bytes(SIZE))
            with suppress(FileExistsError):
                os.link(draft, file)
        finally:
            draft.unlink(missing_ok=True)
    return _key()
