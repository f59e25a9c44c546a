"""Settings that cannot be meant are refused where they stand, in words that say what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_app.errors import SettingsError
from stream_app.escalate.endpoint_names import endpoint_names
from stream_app.settings import ENDPOINTS_MAX, Endpoint, load_settings

if TYPE_CHECKING:
    from pathlib import Path

TASK = '[[tasks]]\nname = "sentiment"\ntiers = ["echo"]\nthreshold = 0.9\n'


def written(folder: Path, *endpoints: str) -> Path:
    """A settings file with these endpoints."""
    file = folder / "shunt.toml"
    file.write_text(TASK + "".join(f"[[llm.endpoints]]\n{endpoint}\n" for endpoint in endpoints))
    return file


def test_several_endpoints_are_read_in_their_order_with_their_own_key_files(tmp_path: Path) -> None:
    """Each is a whole endpoint; a relative key file counts from the settings' folder."""
    own = 'base_url = "http://127.0.0.1:1/v1"\nmodel = "own"\napi_key_file = "own.key"\nrequests_per_minute = 7'
    read = load_settings(written(tmp_path, 'model = "gpt-4o"', own)).llm.endpoints
    assert [endpoint.model for endpoint in read] == ["gpt-4o", "own"]
    assert [endpoint.requests_per_minute for endpoint in read] == [500, 7]
    assert read[1].api_key_file == tmp_path / "own.key"
    assert read[0].api_key_file is None


@pytest.mark.parametrize(
    "second", ['model = "gpt-4o"', 'model = "gpt-4o"\nbase_url = "https://api.openai.com/v1/"\napi_key_env = "OTHER"']
)
def test_the_same_model_at_the_same_address_twice_is_refused(tmp_path: Path, second: str) -> None:
    """Its limits would be used twice over, whatever else differs."""
    with pytest.raises(SettingsError) as raised:
        load_settings(written(tmp_path, 'model = "gpt-4o"', 'model = "gpt-4o-mini"', second))
    said = raised.value.one_line()
    assert "llm.endpoints" in said
    assert "numbers 1 and 3 are both gpt-4o at https://api.openai.com/v1" in said
    assert "leave one out" in said


def test_a_second_opinion_is_no_substitute_and_stands_last_wherever_it_was_written(tmp_path: Path) -> None:
    """The others keep their order, and the first of all is always one that may answer alone."""
    read = load_settings(
        written(tmp_path, 'model = "own"\nsecond_opinion = true', 'model = "gpt-4o"', 'model = "gpt-4o-mini"')
    ).llm
    assert [endpoint.model for endpoint in read.endpoints] == ["gpt-4o", "gpt-4o-mini", "own"]
    assert [endpoint.model for endpoint in read.in_turn] == ["gpt-4o", "gpt-4o-mini"]
    assert read.second_opinion == read.endpoints[-1]
    assert load_settings(written(tmp_path, 'model = "gpt-4o"')).llm.second_opinion is None


@pytest.mark.parametrize(
    ("endpoints", "words"),
    [
        (["second_opinion = true"], "a second opinion needs an endpoint without second_opinion"),
        (['model = "a"', 'model = "b"\nsecond_opinion = true', 'model = "c"\nsecond_opinion = true'], "not several"),
        (
            ['model = "a"', 'model = "a"\nbase_url = "http://10.0.0.1/v1"\nsecond_opinion = true'],
            "a cannot be the second opinion on its own answers",
        ),
    ],
)
def test_second_opinions_that_cannot_be_meant_are_refused(tmp_path: Path, endpoints: list[str], words: str) -> None:
    """In one line: alone, several, or the very model that was asked first."""
    with pytest.raises(SettingsError) as raised:
        load_settings(written(tmp_path, *endpoints))
    assert words in raised.value.one_line()
    assert "\n" not in raised.value.one_line()


def test_more_endpoints_than_anybody_needs_are_refused(tmp_path: Path) -> None:
    """Each has connections of its own."""
    many = [f'model = "m{number}"' for number in range(ENDPOINTS_MAX + 1)]
    assert len(load_settings(written(tmp_path, *many[:-1])).llm.endpoints) == ENDPOINTS_MAX
    with pytest.raises(SettingsError, match=r"llm\.endpoints"):
        load_settings(written(tmp_path, *many))


def test_no_two_endpoints_share_a_name_in_the_metrics() -> None:
    """The host where that tells them apart, else as much more as it takes."""
    azure = "https://one.example/openai/deployments/"
    found = endpoint_names(
        [
            Endpoint(base_url="http://127.0.0.1:8000/v1", model="own"),
            Endpoint(model="gpt-4o"),
            Endpoint(model="gpt-4o-mini"),
            Endpoint(base_url=f"{azure}a", model="gpt-4o"),
            Endpoint(base_url=f"{azure}b", model="gpt-4o"),
        ]
    )
    assert found == [
        "127.0.0.1:8000",
        "api.openai.com gpt-4o",
        "api.openai.com gpt-4o-mini",
        f"{azure}a gpt-4o",
        f"{azure}b gpt-4o",
    ]
