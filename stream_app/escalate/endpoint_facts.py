"""What is known of an endpoint before a call: its key, whether it is on this machine, what its model refuses."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stream_app.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_app.settings import Endpoint

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
PLACEHOLDER_KEY = "none"  # a local endpoint asks for no key; the SDK insists on one
REASONING_MODEL = re.compile(r"^(o\d|gpt-5)")
"""They refuse `temperature`."""


def api_key(endpoint: Endpoint, environ: Mapping[str, str] = os.environ) -> str:
    """The endpoint's key, from its file or its environment variable.

    A loopback address needs none. Raises SettingsError, naming what to set, where another one has none.
    """
    if endpoint.api_key_file is not None:
        try:
            key = endpoint.api_key_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(
                f"the LLM key file {endpoint.api_key_file} cannot be read ({error.strerror})",
                advice="correct llm.endpoints.api_key_file",
            ) from error
        if key:
            return key
        raise SettingsError(f"the LLM key file {endpoint.api_key_file} is empty", advice="put the key into it")
    if key := environ.get(endpoint.api_key_env, "").strip():
        return key
    if urlsplit(endpoint.base_url).hostname in LOOPBACK:
        return PLACEHOLDER_KEY
    raise SettingsError(
        f"no key for {endpoint.base_url}",
        advice=f"set the environment variable {endpoint.api_key_env}, or name a file with api_key_file",
    )
