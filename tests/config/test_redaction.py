"""Secrets stay out of texts and configs, and everything else stays in."""

import subprocess
import sys
import time
import uuid
from pathlib import Path

import click
import pytest
import yaml
from omegaconf import OmegaConf

from regente.config.environment import env_references, externalize, literal_secrets
from regente.config.interpolation import resolve
from regente.config.redaction import MASK, Redactor, looks_secret, secret_values
from regente.errors import ConfigError
from regente.jobs.streams import SafeStream, redact_output

WORD = "hunter2Swordfish"
LONG = "R4nd0mCh4r4ct3rsOfNoMeaning7890abcdEFGH"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\nMIIE{LONG}\n{LONG}==\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"

# the text, and what must not be left of it
PLANTED = [
    (f"password={WORD}", WORD),
    (f"++tracking.password={WORD}", WORD),
    (f"regente train model=cnn +data.api_key={WORD} optimizer.lr=3e-3", WORD),
    (f"DB_PASSWORD: {WORD}", WORD),
    (f"['seed=1', 'data.token={WORD} and more']", "and more"),
    (f'{{"user": "ann", "client_secret": "{WORD}", "seed": 1}}', WORD),
    (f'"{{\\"apiKey\\": \\"{WORD}\\"}}"', WORD),
    (f"{{'accessToken': '{WORD}'}}", WORD),
    (f"curl --auth-token {WORD} http://host", WORD),
    (f"['prog', '--token', '{WORD}']", WORD),
    (f"--secret={WORD}", WORD),
    (f'os.environ["MLFLOW_TRACKING_TOKEN"] = "{WORD}"', WORD),
    (f'    token: str = "{WORD}"', WORD),
    (f'mlflow.log_param("api_key", "{WORD}")', WORD),
    (f"os.environ.get('DB_PASSWORD', '{WORD}')", WORD),
    (f"data.credentials=[{WORD},other]", WORD),
    (f"PGPASSWORD={WORD} psql", WORD),
    (f"AWS_SECRET_ACCESS_KEY={LONG}/+x", LONG),
    ("password=123456", "123456"),
    (f'api_key = """{WORD}"""', WORD),
    (f"password: 'it''s{WORD}'", WORD),
    (f"https://hooks.slack.com/services/T000/B000/{LONG}", LONG),
    (f"http://host/path?access_token={WORD}&page=2", WORD),
    (f"Authorization: Basic {LONG}==", LONG),
    (f"x-api-key: {WORD}", WORD),
    (f"-H 'Bearer {LONG}'", LONG),
    (f"postgresql://ann:{WORD}@db.example.org:5432/runs", WORD),
    ("mysql+pymysql://ann:p@ss/w#rd1@db/runs", "rd1"),
    (f"redis://:{WORD}@localhost", WORD),
    (f"https://{LONG}@github.com/ann/repo.git", LONG),
    ("found AKIAIOSFODNN7EXAMPLE there", "IOSFODNN7"),
    (f"ghp_{LONG}", LONG),
    (f"github_pat_{LONG}", LONG),
    (f"glpat-{LONG[:20]}", LONG[:20]),
    ("xoxb-123456789012-abcdefABCDEF", "abcdefABCDEF"),
    (f"sk-ant-api03-{LONG}", LONG),
    (f"sk-{LONG}", LONG),
    ("hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", "mnopqrst"),
    (f"AIza{LONG}", LONG),
    (f"got {JWT}, refused", "dozjgNryP4J3"),
    (f"npm_{LONG}", LONG),
    (PEM, LONG),
    (f"MYSQL_PWD={WORD}", WORD),
    (f"data.pwd={WORD}", WORD),
    (f"GH_PAT={WORD}", WORD),
    (f"sentry.dsn: {WORD}", WORD),
    (f"connection_string='Server=x;{WORD}'", WORD),
    (f"ConnectionString: {WORD}", WORD),
    (f"cookie: session={WORD}", WORD),
    (f"storage_key={WORD} azure_key={WORD} subscription-key={WORD}", WORD),
    (f"OPENAI_KEY={WORD}", WORD),
    (f"AccountName=a;AccountKey={LONG}==;Endpoint=core", LONG),
    (f"https://a.blob.core.windows.net/c?sv=2024&sig={LONG}%3D&se=2026", LONG),
    (f"SG.{LONG[:22]}.{LONG}", LONG),
    (f"xapp-1-A0-{LONG}", LONG),
    (f"whsec_{LONG}", LONG),
    (f"curl -u ann:{WORD} http://host", WORD),
    (f"curl --user ann:{WORD} http://host", WORD),
    (f"glrt-{LONG[:20]} gldt-{LONG[:20]}", LONG[:20]),
    ("0123456789abcdef0123456789abcdef-us12", "0123456789abcdef"),
    ("bot 123456789:AAabcdefghijklmnopqrstuvwxyz1234567", "AAabcdef"),
]

INNOCENT = [
    "max_tokens: 512",
    "model.num_tokens=50257",
    "tokenizer: bpe",
    "token_dim=64",
    "tokens_per_second: 1200.5",
    "pad_token: pad",
    "eos_token='</s>'",
    "special token: end",
    "loss per token: 2.31",
    "tokens: [1, 2, 3]",
    "author: Ann Example <ann@example.org>",
    "authorized: yes",
    "keyboard=qwerty monkey=1 key=value primary_key: id",
    "sort(key=len)",
    "password_file: /etc/regente/password",
    "optimizer.lr=3e-3 trainer.max_epochs=20 seed=1234567890",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    f"run {uuid.UUID(int=2**100)} {uuid.UUID(int=2**99).hex}",
    "/home/ann/runs/digits_cnn/20251121-031500-ab12cd/checkpoints/best.ckpt",
    "regente.models.lstm.LSTM",
    "https://github.com/ann/repo.git http://127.0.0.1:5000/#/experiments/1",
    "ssh://git@github.com/ann/repo git@github.com:ann/repo.git",
    "docker://image:tag@sha256:2c26b46b68ff",
    "sqlite:////data/mlflow.db",
    "http://host:4873/@scope/package",
    "token: ${oc.env:HF_TOKEN}",
    "password: ${oc.env:DB_PASSWORD,null}",
    "url: postgresql://ann:${db.password}@host/runs",
    "curl --token $TOKEN",
    "def login(user: str, password: str, token: str | None = None) -> None:",
    "    login(token=token, password=os.environ['DB_PASSWORD'], secret=get_secret(name))",
    "data.token: no such setting; did you mean data.tokens?",
    "fields = ('password', 'username') set('token', 'none')",
    "password: null",
    "no password: it was refused",
    "use_auth_token: true",
    "token: ???",
    "risk-aware-disk-2-partitioning task-0123456789abcdef",
    "sk-learn-compatible",
    "hf_transformers hf_BertForSequenceClassification",
    "the bearer of news, bearer authentication",
    "@@ -1,3 +1,4 @@ class Token:",
    "-----BEGIN CERTIFICATE-----",
    "PWD=/home/ann OLDPWD=/home",
    "find . -u root --user ann",
    "path=pat.txt pattern: a+b",
    "signature: sigmoid sig=3",
    "SKILLS AC/DC 12345678:90",
    "a string of a connection",
    "",
]


@pytest.mark.parametrize(("text", "secret"), PLANTED, ids=[text[:40] for text, _ in PLANTED])
def test_a_planted_secret_is_masked_wherever_it_stands(text: str, secret: str) -> None:
    masked = Redactor().text(f"before {text} after\nbefore\n{text}\nafter")
    assert secret not in masked
    assert MASK in masked
    assert masked.startswith("before")
    assert masked.endswith("after")
    assert Redactor().text(masked) == masked


@pytest.mark.parametrize("text", INNOCENT)
def test_an_innocent_text_stays_as_it_is(text: str) -> None:
    assert Redactor().text(text) == text
    assert Redactor().value("note", text) == text


def test_only_the_secret_goes_and_what_is_around_it_stays() -> None:
    text = Redactor().text
    assert text("a=1 tracking.token=abc123 b=2") == "a=1 tracking.token=*** b=2"
    assert text('{"token": "abc", "lr": 1}') == '{"token": "***", "lr": 1}'
    assert text("http://ann:pw@host:5000/x") == "http://***@host:5000/x"
    assert text("db:\n  password: two words  # why\n  lr: 1") == "db:\n  password: ***  # why\n  lr: 1"
    assert text("f(secret=abc,lr=1)") == "f(secret=***,lr=1)"
    assert text("h?token=abc&page=2") == "h?token=***&page=2"


def test_known_values_go_everywhere_longest_first() -> None:
    redactor = Redactor(
        ["correct-horse", "correct-horse-battery", "short", "${oc.env:NAME}", 'two\nli"nes-of-it']
    )
    assert redactor.text("<correct-horse-battery> xcorrect-horsey") == f"<{MASK}> x{MASK}y"
    assert redactor.text("short ${oc.env:NAME}") == "short ${oc.env:NAME}"
    assert "nes-of-it" not in redactor.text(r'{"a": "two\nli\"nes-of-it"}')
    assert Redactor(["p@ss word/1"]).text("x=p%40ss%20word%2F1") == f"x={MASK}"


def test_values_of_the_environment_are_secret_by_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "A": "qX7z",
        "B": "12345",
        "C": "/usr",
        "D": "true",
        "E": "",
        "F": "tree house",
    }.items():
        monkeypatch.setenv(name, value)
    found = env_references("a: ${oc.env:A}\nb: [x${oc.env:B,1}, '${oc.env:C}${oc.env:D}', ${oc.env:E}, ${oc.env:G,2}]\n"
                           "f: ${oc.decode:${oc.env:F}}")  # fmt: skip
    assert found == {"A": "qX7z", "B": "12345", "C": "/usr", "D": "true", "F": "tree house"}
    redactor = Redactor(environment={**found, "HOME": "/root", "USER": "user"})
    assert (
        redactor.text("qX7z 12345 /usr/lib true tree house user /root")
        == "*** 12345 /usr/lib true *** user /root"
    )
    assert redactor.text("xqX7zx") == "xqX7zx"


@pytest.mark.parametrize(
    "key",
    ["password", "db.passwd", "a.b.secret", "HF_TOKEN", "apiKey", "api-key", "APIKey", "OPENAI_API_KEY", "apikey",
     "aws_access_key_id", "privateKey", "credentials", "credential", "Authorization", "bearer", "clientSecret",
     "token", "token2", "auth_tokens", "secrets[0]", "secret_key_base", "dbPassword"],
)  # fmt: skip
def test_a_secret_name_is_recognised(key: str) -> None:
    assert looks_secret(key)


@pytest.mark.parametrize(
    "key",
    ["max_tokens", "num_tokens", "tokenizer", "token_dim", "tokens", "author", "authorized", "keyboard", "monkey",
     "key", "primary_key", "secret.lr", "", "model", "padToken", "cls_token", "token_type_ids", "passes", "bypass",
     "credentials_file", "foreign_key", "max_new_tokens", "PWD"],
)  # fmt: skip
def test_an_innocent_name_is_left_alone(key: str) -> None:
    assert not looks_secret(key)


def test_a_config_is_masked_leaf_by_leaf() -> None:
    config = {
        "lr": 1e-3,
        "data": {"token": "abc", "pin": {"secret": 1234}, "use_token": True, "api_key": None, "password": ""},
        "secrets": {"db": "abc", "more": ["def"]},
        "token": {"_target_": "my.Embedding", "dim": 8},
        "api_tokens": ["abc", "def"],
        "uri": "http://ann:pw@host",
        "reference": {"token": "${oc.env:TOKEN}", "password": "${oc.env:PW,abc}", "secret": "???"},
    }
    assert Redactor().tree(config) == {
        "lr": 1e-3,
        "data": {"token": MASK, "pin": {"secret": MASK}, "use_token": True, "api_key": None, "password": ""},
        "secrets": {"db": MASK, "more": [MASK]},
        "token": {"_target_": "my.Embedding", "dim": 8},
        "api_tokens": [MASK, MASK],
        "uri": "http://***@host",
        "reference": {"token": "${oc.env:TOKEN}", "password": "${oc.env:PW,***}", "secret": "???"},
    }
    assert Redactor().value("data.token", "abc") == MASK
    assert Redactor().value("data.lr", 0.1) == 0.1


def test_the_secrets_of_a_config_are_found() -> None:
    config = {"a": {"password": "abc", "lr": "1"}, "b": [f"ghp_{LONG}"], "uri": "http://ann:pw123@h", "n": None,
              "token": "${oc.env:TOKEN}", "api_keys": ["one", "two"]}  # fmt: skip
    assert secret_values(config) == {"abc", f"ghp_{LONG}", "ann:pw123", "pw123", "one", "two"}
    assert secret_values({"x": "abc"}, "secrets") == {"abc"}


def test_a_traceback_keeps_its_lines_and_loses_its_secrets() -> None:
    trace = f"""Traceback (most recent call last):
  File "/home/ann/my_data.py", line 12, in prepare_data
    login(token=token, password="{WORD}")
    ~~~~~^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/home/ann/my_data.py", line 30, in login
    raise ConnectionError(f"refused: {{url}}")
ConnectionError: refused: https://ann:{WORD}@host/v1?token={WORD}&page=1
{PEM}
KeyError: 'correct-horse'
"""
    masked = Redactor(["correct-horse"]).text(trace)
    assert WORD not in masked
    assert LONG not in masked
    assert "correct-horse" not in masked
    before, after = trace.splitlines(), masked.splitlines()
    assert len(before) == len(after)
    changed = [number for number, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert changed == [2, 6, 7, 8, 9, 10, 11]
    assert after[2] == '    login(token=token, password="***")'


def test_a_patch_keeps_its_line_count_and_its_marks() -> None:
    key = "\n".join(f"+{line}" for line in PEM.splitlines())
    patch = f"""diff --git a/conf/db.yaml b/conf/db.yaml
index 83db48f..bf269f4 100644
--- a/conf/db.yaml
+++ b/conf/db.yaml
@@ -1,4 +1,8 @@ class Token:
 max_tokens: 5
-password: {WORD}
+password: two {WORD}
+key: |
{key}
-    api_key = "{WORD}"
+    api_key = os.environ["API_KEY"]
"""
    masked = Redactor().text(patch)
    assert WORD not in masked
    assert LONG not in masked
    assert [line[:1] for line in masked.splitlines()] == [line[:1] for line in patch.splitlines()]
    assert '+    api_key = os.environ["API_KEY"]' in masked
    assert masked.splitlines()[:6] == patch.splitlines()[:6]


CONFIG = f"""# a comment
seed: 1   # stays
data:
  _target_: my.Data
  token: abc123
  pin:
    password: 1234
  api_key: 'it''s "quoted"'
  max_tokens: 5
  reference: {{password: '${{oc.env:PW,fallback}}', token: "${{oc.env:TOKEN}}", secret: flow}}
url: http://ann:{WORD}@${{data._target_}}/x
header: Bearer {LONG}
api_tokens: [one, "two"]
private_key: |
  line one
  line two
last: true
"""


def test_literal_secrets_move_from_the_config_into_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "from outside")
    monkeypatch.delenv("PW", raising=False)
    text, variables = externalize(CONFIG)
    for secret in ("abc123", "1234", "quoted", "fallback", "flow", WORD, LONG, "one", "two"):
        assert secret not in text.replace("from", "")
    assert all(name.startswith("REGENTE_SECRET_") for name in variables)
    changed = [old for old, new in zip(CONFIG.splitlines(), text.splitlines(), strict=False) if old == new]
    assert changed[:4] == ["# a comment", "seed: 1   # stays", "data:", "  _target_: my.Data"]
    assert text.endswith("last: true\n")
    before = OmegaConf.to_container(OmegaConf.create(CONFIG), resolve=True)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert OmegaConf.to_container(OmegaConf.create(text), resolve=True) == before
    assert env_references(text) == {**variables, "TOKEN": "from outside"}
    assert externalize(text) == (text, {})


def test_a_secret_has_the_same_variable_in_each_config() -> None:
    _, first = externalize("a: 1\ndata:\n  token: abc\n")
    _, second = externalize("data:\n  lr: 2\n  token: other\n  secret: abc\n")
    assert set(first) < set(second)
    assert set(second.values()) == {"other", "abc"}


def test_a_config_without_secrets_stays_byte_for_byte() -> None:
    text = "# c\na:   {b: 'x', max_tokens: 5}\nkey: &k value\nother: *k\ntoken: null\nsecret: ${a.b}\npassword: ???\n"
    assert externalize(text) == (text, {})
    assert externalize("") == ("", {})


def test_an_anchor_of_a_secret_still_serves_its_alias() -> None:
    text, variables = externalize("token: &t abc\nsecret: *t\n")
    assert list(variables.values()) == ["abc"]
    assert len(set(yaml.safe_load(text).values())) == 1


def test_it_imports_fast_and_reads_a_long_patch_in_linear_time() -> None:
    code = (
        "import sys; import regente.config.redaction; print('yaml' in sys.modules, 'hashlib' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "False False\n"
    for text in (
        "a" * 300_000,
        "a-" * 20_000,
        "+    x = f(y)  # token\n" * 10_000,
        "://a:" * 10_000,
        '"' * 100_000,
    ):
        start = time.process_time()
        Redactor(["correct-horse"]).text(text)
        assert time.process_time() - start < 60  # milliseconds; quadratic work would take hours


def test_a_literal_secret_is_named_at_the_start_and_when_it_is_missing() -> None:
    text, variables = externalize("vars:\n  api_token: abc123xyz\nseed: 0\n")
    (name,) = variables
    (line,) = literal_secrets(text)
    assert name in line and "${oc.env:NAME}" in line and "abc123xyz" not in line
    assert literal_secrets("vars: {api_token: '${oc.env:MY_TOKEN}'}") == []
    with pytest.raises(ConfigError) as caught:
        resolve(text)
    assert (
        str(caught.value)
        == f"vars.api_token: is a secret, which no file keeps; give it again: export {name}=..."
    )
    with pytest.raises(ConfigError, match="this variable is not set; export NO_SUCH_VARIABLE_HERE"):
        resolve("a: ${oc.env:NO_SUCH_VARIABLE_HERE}")


def test_what_is_printed_into_a_file_has_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stdout", SafeStream(file))
        click.echo("as it is: correct-horse")
        redact_output(Redactor(["correct-horse"]).text)
        click.echo("masked: correct-horse")
        sys.stdout.write(f"it is correct-horse, token={WORD}\n")
    assert (tmp_path / "log").read_text() == "as it is: correct-horse\nmasked: ***\nit is ***, token=***\n"
