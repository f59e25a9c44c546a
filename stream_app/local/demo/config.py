"""The demo's settings file: what a user would write in `shunt.toml` for this stack and the shipped policy."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream_app.errors import SettingsError, StartError
from stream_app.escalate.prices import DEFAULT_PRICES, Price, price_of
from stream_app.local.demo.options import REAL_LLM
from stream_app.local.triton_server import PYTHONS
from stream_app.routing.policy import Policy, load_policy
from stream_app.settings import Endpoint

if TYPE_CHECKING:
    from stream_app.local.demo.options import DemoLlm
    from stream_app.local.stack import StackInfo

INPUT_TOPIC = "reviews"
STAND_IN_KEY = "STAND_IN_API_KEY"
"""The environment variable that holds the stand-in's key: any text will do, and no real key goes there."""
STAND_IN_REQUESTS_PER_MINUTE = 9_000
STAND_IN_TOKENS_PER_MINUTE = 9_000_000
"""The stand-in has no limits; these keep its 300 ms calls to about 45 at a time."""
SESSION_TIMEOUT_MS = 6_000
"""Kafka's least: a killed worker's partitions go to the next one after this long."""
POLICY = "demo.json"


def require_platform() -> None:
    """Raise StartError at once where the embedded stack cannot run, before anything is fetched for it."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.version_info[:2] not in PYTHONS:
        raise StartError(
            "the demo needs Linux x86-64 and Python 3.11 or 3.12,"
            f" this is {sys.platform} {platform.machine()} with Python {platform.python_version()}",
            advice="docker compose -f docker/compose.yaml up is the way here",
        )


def shipped_policy_path() -> Path:
    """The policy that is shipped for the demo's tasks, calibrated on public reviews."""
    return Path(str(resources.files("stream_app.local").joinpath("policies", POLICY)))


def shipped_models_path() -> Path:
    """The shipped model repository, beside the package. Raises StartError where it is not."""
    path = Path(__file__).resolve().parents[3] / "triton_models"
    if not path.is_dir():
        raise StartError(f"the shipped models are not in {path}", advice="run the demo in a clone of the repository")
    return path


def shipped_policy() -> Policy:
    """The policy itself."""
    return load_policy(shipped_policy_path().read_bytes(), POLICY)


def models_of(policy: Policy, tasks: frozenset[str]) -> list[str]:
    """Every model that any of the tasks asks, once."""
    members = [
        member.model
        for name, task in policy.tasks.items()
        if name in tasks
        for tier in task.tiers
        for member in tier.members
    ]
    return list(dict.fromkeys(members))


def settings_text(policy: Policy, tasks: frozenset[str], stack: StackInfo, llm: DemoLlm, web_port: int) -> str:
    """The settings file. Recorded prompts were plain, so hint and pruning are off where answers are replayed."""
    sections: list[tuple[str, dict[str, Any]]] = [
        (
            "[kafka]",
            {
                "bootstrap_servers": stack.bootstrap_servers,
                "input_topic": INPUT_TOPIC,
                "session_timeout_ms": SESSION_TIMEOUT_MS,
            },
        ),
        ("[triton]", {"url": stack.triton_grpc}),
        *[("[[tasks]]", _task(policy, name)) for name in policy.tasks if name in tasks],
        ("[policy]", {"file": str(shipped_policy_path())}),
        ("[llm]", {"hint": not llm.replays, "prune": not llm.replays}),
        ("[[llm.endpoints]]", _endpoint(stack, llm)),
        ("[web]", {"port": web_port}),
    ]
    return "\n\n".join(f"{title}\n" + "\n".join(_lines(values)) for title, values in sections) + "\n"


def _task(policy: Policy, name: str) -> dict[str, Any]:
    task = policy.tasks[name]
    tiers = [[member.model for member in tier.members] for tier in task.tiers]
    return {
        "name": name,
        "labels": list(task.labels),
        "tiers": [tier[0] if len(tier) == 1 else tier for tier in tiers],
        "target_error": task.target_error,
    }


def _endpoint(stack: StackInfo, llm: DemoLlm) -> dict[str, Any]:
    if not llm.stand_in:
        free = {} if price_known(llm.model) else asdict(Price(0.0, 0.0))
        return {"base_url": llm.base_url, "model": llm.model, **free}
    return {
        "base_url": stack.llm_base_url,
        "model": llm.model,
        "api_key_env": STAND_IN_KEY,
        "requests_per_minute": STAND_IN_REQUESTS_PER_MINUTE,
        "tokens_per_minute": STAND_IN_TOKENS_PER_MINUTE,
        **asdict(stand_in_price(llm.model)),
    }


def price_known(model: str) -> bool:
    """Whether the table of prices has the model; where not, a real LLM's calls are shown as free."""
    try:
        price_of(Endpoint(model=model))
    except SettingsError:
        return False
    return True


def stand_in_price(model: str) -> Price:
    """The price a stand-in's answers are counted at: its model's, its model family's, or the default model's."""
    family = max((name for name in DEFAULT_PRICES if model.startswith(name)), key=len, default=REAL_LLM)
    return DEFAULT_PRICES[family]


def _lines(values: dict[str, Any]) -> list[str]:
    """TOML writes strings, numbers, booleans and lists of them as JSON does."""
    return [f"{name} = {json.dumps(value)}" for name, value in values.items()]
