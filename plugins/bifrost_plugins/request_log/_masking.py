"""What looks like a credential, taken out of texts that are kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from bifrost_core import Secret

__all__ = ["masker"]

# Each has a fixed beginning and one run of characters behind it: time grows with the text, never faster.
# Sources: https://docs.github.com/en/code-security/secret-scanning/introduction/supported-secret-scanning-patterns,
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html, RFC 6750 (Bearer), RFC 7519 (JWT),
# RFC 7468 (PEM).
_CREDENTIAL: Final = re.compile(
    r"""
      \b(?:sk|pk|rk|gsk|xai|vk)-[A-Za-z0-9_-]{16,512}               # OpenAI, Anthropic, Groq, Bifrost …
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                                 # AWS
    | \bAIza[A-Za-z0-9_-]{35}                                       # Google
    | \bgh[pousr]_[A-Za-z0-9]{36,255} | \bgithub_pat_[A-Za-z0-9_]{22,255}
    | \bxox[abeprs]-[A-Za-z0-9-]{10,255}                            # Slack
    | \beyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,2048}   # JWT
    | (?<=\b[Bb]earer[ ])[A-Za-z0-9._~+/=-]{16,4096}
    | -----BEGIN[ ][A-Z ]{0,32}PRIVATE[ ]KEY-----[^-]{0,16384}(?:-----END[ ][A-Z ]{0,32}PRIVATE[ ]KEY-----)?
    """,
    re.VERBOSE,
)
_MASK: Final = "[credential]"


def masker(virtual_key: Secret | None) -> Callable[[str], str]:
    """A function that takes the caller's own key, and what looks like any other credential, out of a text."""

    def mask(text: str) -> str:
        if virtual_key is not None:
            text = virtual_key.mask(text)
        return _CREDENTIAL.sub(_MASK, text)

    return mask
