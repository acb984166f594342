"""Whatever a server or a network does, the user reads one line that says what to do; no wait is unbounded."""

import logging
import time
import traceback

import pytest
import timm
from huggingface_hub import constants
from huggingface_hub import logging as hub_logging
from huggingface_hub.utils import _http, are_progress_bars_disabled, enable_progress_bars

from seattn.cli.main import run
from seattn.core.errors import UserError
from seattn.hub.publishing import publish_folder, pull, verify_repository
from seattn.models.load import load_model
from tests.helpers.hub.faults import Answer, Cut, Drop, Hang, Stall
from tests.helpers.hub.user import NAME, REPO, read, whole
from tests.hub.conftest import NOWHERE, TOKEN, use

ACTIONS = {
    "pull": lambda staged: pull(REPO),
    "verify": lambda staged: verify_repository(REPO),
    "load": lambda staged: load_model(f"hf-hub:{REPO}"),
    "publish": lambda staged: publish_folder(staged, REPO),
}


@pytest.fixture(params=ACTIONS)
def action(request, hub, login, staged):
    """Something that asks the Hub."""
    prepare(hub, staged, request.param)
    return lambda: ACTIONS[request.param](staged)


def prepare(hub, staged, name):
    """What is to be fetched; of what is to be published an earlier version, two large files of which are others."""
    earlier = dict.fromkeys(("README.md", "model.safetensors", "test/golden.safetensors"), b"an earlier one")
    hub.store.put(REPO, read(staged) | (earlier if name == "publish" else {}))


def refusal(status, message="", code=None, **headers):
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    sent = {
        "X-Error-Message": message.splitlines()[0] if message else "",
        **({"X-Error-Code": code} if code else {}),
        **named,
    }
    return Answer(status, sent, {"error": message})


ANSWERS = {
    "401": (refusal(401, "Invalid credentials in Authorization header"), "or the token is wrong or has expired"),
    "403": (refusal(403, "Forbidden: pass a token with write permission"), "pass a token with write permission); use"),
    "403 gated": (refusal(403, "Ask for access", "GatedRepo"), "ask for access on its page"),
    "404": (refusal(404, "Repository not found", "RepoNotFound"), "(404: Repository not found); check the name"),
    "409": (refusal(409, "busy"), "refuses the request about org/my_birds (409: busy)"),
    "418": (refusal(418, "I am a teapot\nwith two lines"), "(418: I am a teapot"),
    "429": (refusal(429, "slow down"), "in some minutes"),
    "429, wait an hour": (refusal(429, Retry_After="3600"), "try again in 3600 seconds"),
    "429, the Hub's way": (
        refusal(429, ratelimit='"api";r=0;t=280', ratelimit_policy='"fixed window";"api";q=5;w=300'),
        "try again in 280 seconds",
    ),
    "500": (refusal(500, "Internal Error"), "(500: Internal Error); try again later"),
    "503": (Answer(503, {"Content-Type": "text/html"}, b"<html>" * 500), "(503: "),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_refuses_is_one_line(action, hub, answer, no_waiting, staged):
    before = hub.files(REPO)
    hub.fault = lambda request: ANSWERS[answer][0]
    with pytest.raises(UserError) as error:
        action()
    line = str(error.value)
    if answer != "404" or "publish" not in line:
        assert ANSWERS[answer][1] in line
    assert "\n" not in line
    assert len(line) < 500
    assert hub.url in line
    assert hub.files(REPO) == before
    assert sum(no_waiting) < 120
    assert whole(constants.HF_HUB_CACHE)


def test_without_a_login_a_401_says_log_in(hub, staged):
    hub.store.put(REPO, read(staged), private=True)
    for act in (lambda: pull(REPO), lambda: load_model(f"hf-hub:{REPO}")):
        with pytest.raises(UserError, match=r"log in with `hf auth login`, or set HF_TOKEN"):
            act()


def test_a_token_without_the_right_to_write(hub, login, staged):
    with pytest.raises(UserError, match=r"refuses the request about theirs/x \(403: You don't have"):
        publish_folder(staged, "theirs/x")
    assert hub.store.repositories == {}


def test_a_short_retry_after_is_waited_for(hub, staged, no_waiting):
    hub.store.put(REPO, read(staged))
    refused = []

    def twice(request):
        if "/tree/" in request.path and len(refused) < 2:
            refused.append(request)
            return refusal(429, Retry_After="7")
        return None

    hub.fault = twice
    pull(REPO)
    assert no_waiting == [8.0, 8.0]  # the client waits a second longer


@pytest.mark.parametrize(
    ("name", "where", "fault"),
    [
        *[(name, "", Hang(20)) for name in ACTIONS],
        ("load", "/resolve/main/model.safetensors", Hang(20)),
        *[("pull", at, Hang(20)) for at in ("/tree/", "/cdn/")],
        *[
            ("publish", place, Hang(20))
            for place in ("/preupload/", "/lfs/", "/objects/batch", "/commit/", "/resolve/")
        ],
        ("pull", "/cdn/", Stall(20)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Hang | Stall) else None,
)
def test_a_server_that_hangs_or_stops_in_the_middle_of_a_file_is_given_up(
    hub, login, short, staged, name, where, fault
):
    prepare(hub, staged, name)
    met = []
    hub.fault = lambda request: fault if where in request.path and not met.append(request) else None
    begun = time.monotonic()
    with pytest.raises(UserError, match=rf"^[^\n]*(http://localhost:{hub.port}|{hub.url})[^\n]*$"):
        ACTIONS[name](staged)
    assert time.monotonic() - begun < 20
    assert met
    assert whole(constants.HF_HUB_CACHE)


def test_what_hangs_is_said(hub, short, fails):
    hub.fault = lambda request: Hang(20)
    line = fails("hub", "verify", REPO)
    assert f"{hub.url} did not answer about {REPO} in time" in line
    assert "HF_HUB_DOWNLOAD_TIMEOUT" in line


@pytest.mark.parametrize("fault", [Drop(), Cut(10)], ids=["dropped", "cut"])
def test_a_connection_that_always_breaks_is_one_line(action, hub, fault, no_waiting):
    hub.fault = lambda request: fault
    with pytest.raises(UserError) as error:
        action()
    assert hub.url in str(error.value)
    assert "\n" not in str(error.value)
    assert sum(no_waiting) < 120


def test_no_server_at_all(monkeypatch, fails, staged, no_waiting, login):
    for url, message in (
        (NOWHERE, f"cannot reach {NOWHERE} for {REPO}: "),
        ("localhost:9", "check the network and HF_ENDPOINT"),
        ("http://[", "HF_ENDPOINT"),
        ("", "HF_ENDPOINT"),
    ):
        use(monkeypatch, url)
        assert message in fails("hub", "pull", REPO)
        with pytest.raises(UserError, match=r"HF_ENDPOINT"):
            publish_folder(staged, REPO)


@pytest.mark.parametrize("token", ["hf_a b", "hf_\x00secret", "hf_sécret", "hf_a\nX-Evil: 1"])
def test_a_token_that_cannot_be_sent_is_not_shown(hub, staged, monkeypatch, token, tmp_path):
    hub.store.put(REPO, read(staged))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_bytes(token.encode())
    for act in (lambda: pull(REPO), lambda: publish_folder(staged, REPO), lambda: load_model(f"hf-hub:{REPO}")):
        with pytest.raises(UserError, match=r"has invalid characters; copy it again") as error:
            act()
        assert token not in str(error.value)


@pytest.mark.parametrize("answer", ["401", "403", "429, wait an hour", "500", "418"])
def test_the_token_is_in_no_output_and_no_traceback(action, hub, answer, no_waiting, capfd, caplog, monkeypatch):
    """At the client's most talkative, and with a server that says the token back."""
    monkeypatch.setattr(constants, "HF_DEBUG", True)
    hub_logging.set_verbosity_debug()
    caplog.set_level(logging.DEBUG)
    fault = ANSWERS[answer][0]
    echo = Answer(fault.status, {**fault.headers, "X-Error-Message": f"who is {TOKEN}?"}, {"error": f"no {TOKEN}"})
    try:
        for answer in (fault, echo):
            hub.fault = lambda request, answer=answer: answer
            with pytest.raises(UserError) as error:
                action()
            assert TOKEN not in str(error.value)
            assert TOKEN not in "".join(traceback.format_exception(error.value))
    finally:
        hub_logging.set_verbosity_warning()
    out, err = capfd.readouterr()
    assert "curl" in out + err + caplog.text
    for line in (out + err + caplog.text).splitlines():
        assert TOKEN not in line or "who is" in line or "error" in line


def test_a_library_call_leaves_the_clients_settings_and_a_users_own_client(hub, staged):
    """The bounded client is for the command line."""
    hub.store.put(REPO, read(staged))
    seen = []

    def factory():
        client = _http.default_client_factory()
        client.event_hooks["request"].append(lambda request: seen.append(str(request.url)))
        return client

    _http.set_client_factory(factory)
    hub_logging.set_verbosity_warning()
    enable_progress_bars()
    client = _http.get_session()
    pull(REPO)
    assert len(seen) == len(hub.requests)
    assert (_http.get_session(), _http._GLOBAL_CLIENT_FACTORY) == (client, factory)
    assert (hub_logging.get_verbosity(), are_progress_bars_disabled()) == (logging.WARNING, False)


def test_a_hub_that_cannot_be_reached_is_asked_once_and_what_is_cached_is_used(hub, staged, no_waiting, monkeypatch):
    hub.store.put(REPO, read(staged))
    load_model(f"hf-hub:{REPO}")
    use(monkeypatch, NOWHERE)
    load_model(f"hf-hub:{REPO}")
    for spec, repo in (("hf-hub:org/other", "org/other"), ("resnet18", "timm/resnet18.a1_in1k")):
        with pytest.raises(UserError, match=rf"^cannot reach {NOWHERE} for {repo}: [^\n]*$"):
            load_model(spec)
    assert no_waiting == []


def test_a_hub_that_does_not_answer_is_waited_for_once(hub, short):
    """timm asks for model.safetensors and then for pytorch_model.bin."""
    hub.fault = lambda request: Hang(20)
    with pytest.raises(UserError, match=rf"^{hub.url} did not answer about timm/resnet18.a1_in1k in time"):
        load_model("resnet18")
    assert len(hub.requests) == 1


def test_the_command_line_bounds_the_waits_once(hub):
    factory = _http._GLOBAL_CLIENT_FACTORY
    run(["hub", "verify", REPO])
    assert _http._GLOBAL_CLIENT_FACTORY is factory
    assert len(_http.get_session().event_hooks["request"]) == 1


def test_create_model_by_name_fails_in_one_line(hub, without_packaged_file, no_waiting):
    with pytest.raises(UserError, match=rf"^{hub.url} refuses the request about seattn/{NAME} \(401: [^\n]*$"):
        timm.create_model("se_resnet20_cifar", pretrained=True)


def test_the_command_line_ends_with_2_and_one_line(hub, photo, fails, no_waiting):
    hub.fault = lambda request: Answer(500)
    for args in (["hub", "pull", REPO], ["hub", "verify", REPO], ["predict", "--model", f"hf-hub:{REPO}", photo]):
        assert "try again later" in fails(*args)
    assert run(["hub", "publish", NAME, "--org", "org", "--dry-run"]) == 2


def test_a_card_that_the_hub_does_not_take_is_said_in_its_words(hub, login, staged):
    reason = '"license" must be one of apache-2.0, mit'
    hub.fault = lambda r: (
        Answer(400, {}, {"errors": [{"message": reason}], "warnings": []}) if "yaml" in r.path else None
    )
    with pytest.raises(UserError, match=rf"refuses the request about {REPO} \(400: {reason}"):
        publish_folder(staged, REPO)
    assert hub.commits(REPO) == ["initial commit"]


def test_offline_nothing_is_published(hub, login, staged, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=rf"HF_HUB_OFFLINE forbids requests to {hub.url} about {REPO}; unset it"):
        publish_folder(staged, REPO)
    assert {change.state for change in publish_folder(staged, REPO, dry_run=True).changes} == {"not compared"}
    assert hub.requests == []
