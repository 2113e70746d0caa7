"""Masks secrets in texts and configs: by the name of their key, by shape, in URLs and from the environment."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MASK = "***"
Substitute = Callable[[str], str]  # a secret -> what takes its place


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NAMES = _words(
    "secret secrets credential credentials passwords passwd pwd passphrase authorization bearer apikey apikeys accesskey"
    " privatekey secretkey authkey authtoken accesstoken apitoken clientsecret cookie cookies dsn"
)
KINDS_OF_KEY = _words(
    "api access private secret account signing encryption ssh auth master deploy storage shared subscription license azure"
    " aws gcp openai anthropic gemini cohere mistral groq openrouter wandb comet neptune"
)
KINDS_OF_TOKENS = _words("auth access api refresh bearer session hf hub")  # more than one, yet secret
PAIRS_OF_WORDS = {("connection", "string"), ("conn", "str"), ("conn", "string")}
NOT_THE_SECRET = _words("dim size len length count type id ids name path file dir folder url uri")
PLAIN_TOKENS = _words(  # of a text or an image: `pad_token: <pad>`, `loss_per_token`
    "pad eos bos sos eot sot bot unk mask sep cls class special start end max min num per image patch new first last"
    " next stop prefix suffix register text time audio video word blank query target source sink forced"
)
PUBLIC = _words("HOME USER LOGNAME PWD OLDPWD PATH SHELL LANG TMPDIR HOSTNAME")
PROSE = _words(  # follows a secret's name in annotations and in messages
    "true false none null str string int float bool bytes any tensor optional secretstr no not needs has is was must"
    " it the for in of on and or missing takes cannot unknown expected required invalid refers several should"
)

SHAPES = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:
      A(?:3T[A-Z0-9]|BIA|CCA|KIA|SIA)[0-9A-Z]{16}(?![0-9A-Za-z]) | AIza[\w-]{30,}      # AWS, Google
    | gh[oprsu]_[A-Za-z0-9]{16,} | github_pat_\w{20,}                      # GitHub
    | gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas)-[\w-]{16,} | GR1348941[\w-]{20,}   # GitLab
    | xox[abeprs]-[\w-]{10,} | xapp-[\w-]{10,} | sk-(?=[\w-]*\d)[\w-]{16,}  # Slack, OpenAI, Anthropic
    | [sr]k_(?:live|test)_\w{16,} | whsec_\w{16,} | sq0(?:csp|atp)-[\w-]{20,}   # Stripe, Square
    | SG\.[\w-]{16,}\.[\w-]{16,} | [0-9a-f]{32}-us\d{1,2} | (?:AC|SK)[0-9a-f]{32}   # SendGrid, Mailchimp, Twilio
    | \d{8,10}:[\w-]{35} | [MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27}        # Telegram, Discord
    | AKC[A-Za-z0-9]{10,} | (?<=[?&]sig=)[\w%+/=-]{16,}                    # Artifactory, Azure's shared access signature
    | (?<=-u[ ])[^\s:'"]{1,100}:[^\s'"]+ | (?<=--user[ ])[^\s:'"]{1,100}:[^\s'"]+   # curl
    | hf_(?:[A-Za-z0-9]{30,}|(?=[A-Za-z]*\d)[A-Za-z0-9]{16,})               # Hugging Face
    | npm_[A-Za-z0-9]{20,} | pypi-[\w-]{40,} | dapi[0-9a-f]{32}             # npm, PyPI, Databricks
    | eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?                                  # JWT
    | (?<=hooks\.slack\.com/services/)[\w/]{20,}
    | (?<=[Bb]earer[ ])(?![a-z]+\b)[\w.~+/-]{8,}=*
    )""",
    re.VERBOSE,
)
PEM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:.{,20000}?-----END [A-Z ]*-----|[\s\w+/=\\]*)",
    re.DOTALL,
)
URL = re.compile(  # a port, and the digest of a container image, are not passwords
    r"""(?<=://)[^\s:/?#@"'<>]{,200}:(?!\d+[/?#,])[^\s"'<>]{1,400}(?=@(?!sha256:))|(?<=https://)[^\s:/?#@"'<>]{1,400}(?=@)"""
)
DEFAULT = re.compile(r"""(\$\{oc\.env:\s*(\w+)\s*,\s*["']?)([^${}"']+)""")
PAIR = re.compile(  # a key and what separates it from its value: key=, key: , "key": , key: str = , --key , "--key",
    r"""(?<![\w.])(?<![\w.]-)(?P<open>\\?["'])?[+~]{0,2}(?P<flag>--)?(?P<key>[A-Za-z_][\w.-]*+)(?:\[\d+\])?
    (?P<close>\\?["']\]?)?
    (?:[ \t]*(?: :[ \t]*[A-Za-z_][\w.|\[\] ]*[ ]=[ ] | :=|={1,3}|=>|(?P<colon>:(?!//|:)) )[ \t]*
    | (?(flag),?[ \t]+(?!-)|(?!)))""",
    re.VERBOSE,
)
ARGUMENT = re.compile(  # log_param("api_key", "..."), os.environ.get('DB_PASSWORD', '...')
    r"""(\w\(\s*(["'])([A-Za-z_][\w.-]*)\2,\s*(["']))([^"'\s-][^"'\s]{5,})(?=\4\s*\))"""
)
QUOTED = re.compile(
    r"""[rbfu]{0,2}(?P<quote>\\?(?:"{3}|'{3}|["']))(?P<body>(?:(?P=quote){2}(?=\w)|(?!(?P=quote))(?:\\.|[^\n\\]))*)(?P=quote)""",
    re.IGNORECASE,
)
BARE = re.compile(
    r"""\[[^\]\n]*\]|(?:(?:bearer|basic|token|digest)[ \t]+)?["']?(?:\$\{(?:[^{}]|\{[^{}]*\})*\}|[^\s"'&,;)}\]\\]
    |\\(?!["'])|,(?!\s|$|[\w.-]+\s*[=:])|&(?![\w.-]+=|\s|$)|[;)}\]"'](?=\w))+""",
    re.VERBOSE | re.IGNORECASE,
)
EMPTY = re.compile(  # a reference, a template, `<pad>`, `???`
    r"\$?\{(?:[^{}]|\{[^{}]*\})*\}|\$\(.*|\$[A-Z_]+\b|%\(\w+\)s|<[^<>]*>|\*{3}|\?{3}|\.{3}|(?i:bearer|basic|token)\b|[\[\]]"
)
CODE = re.compile(r"[A-Za-z_][\w.]*[(\[]|(?:self|cls|os|args|kwargs|cfg|config|settings|env|request)\.")


def looks_secret(key: str) -> bool:
    """Whether the last part of a dotted key names a secret: `db.password`, `HF_TOKEN`, `apiKey`; not `max_tokens`."""
    name = re.sub(r"\[\d+\]|\.\d+$", "", key).rpartition(".")[2]
    if name in PUBLIC:
        return False
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    about = bool(words) and words[-1] in NOT_THE_SECRET  # `password_file`
    for before, word in zip(["", *words], words, strict=False):
        if word in ("key", "keys") and before in KINDS_OF_KEY:
            return not about or words[-1] == "id"  # `aws_access_key_id`
        if (word in NAMES or word.endswith("password")) and not about:
            return True
        if (before, word) in PAIRS_OF_WORDS:
            return True
    kind, last = ["", "", *words][-2:]
    if last == "pat" and kind:  # a personal access token: GH_PAT
        return True
    return (last == "token" and kind not in PLAIN_TOKENS) or (last == "tokens" and kind in KINDS_OF_TOKENS)


Leaf = Callable[[Any, bool], Any]  # a value, and whether its key names a secret -> what takes its place


def map_leaves(node: Any, key: str, leaf: Leaf, secret: bool | None = None) -> Any:
    """A copy of a plain config with `leaf` of each leaf; all below a secret name is secret, except in an object."""
    secret = looks_secret(key) if secret is None else secret
    if isinstance(node, list):
        return [map_leaves(part, f"{key}[{index}]", leaf, secret) for index, part in enumerate(node)]
    if not isinstance(node, dict):
        return leaf(node, secret)
    inherited = (secret and "_target_" not in node) or None
    return {
        name: map_leaves(part, f"{key}.{name}" if key else str(name), leaf, inherited)
        for name, part in node.items()
    }


def secret_values(node: Any, prefix: str = "") -> set[str]:
    """The literal secrets of a plain config, by the names of their keys or by their own shape."""
    found: set[str] = set()

    def keep(value: str) -> str:
        found.add(value)
        return MASK

    def leaf(value: Any, secret: bool) -> None:
        if isinstance(value, str) and secret and literal(value):
            found.add(value)
        elif isinstance(value, str):
            replace_secrets(value, keep, secret=secret)
            found.update(filter(literal, re.findall(r"://[^\s:/@]*:([^\s/@]+)@", value)))

    map_leaves(node, prefix, leaf)
    return found


class Redactor:
    """Masks secrets in texts and configs: known ones wherever they are, others by name and shape.

    `environment` has the variables that a config reads: secret, except for numbers, words of YAML and paths.
    """

    def __init__(self, known: Iterable[str] = (), environment: Mapping[str, str] | None = None) -> None:
        values = {value for value in known if len(value.strip()) >= 6 and literal(value)}
        values |= {value for name, value in (environment or {}).items() if _private(name, value)}
        forms = {form for value in values for form in _forms(value)}
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        whole = [
            f"(?<!\\w){re.escape(form)}(?!\\w)" if len(form) < 6 else re.escape(form) for form in ordered
        ]
        self.known = re.compile("|".join(whole)) if whole else None

    def text(self, text: str) -> str:
        """The text with every secret masked; line breaks stay where they are."""
        if self.known:
            text = self.known.sub(lambda found: _mask(found[0]), text)
        return replace_secrets(text, _mask)

    def value(self, key: str, value: Any) -> Any:
        """A config's leaf as it may be shown: masked if its key or itself is secret; references stay."""
        return self._leaf(value, looks_secret(key))

    def tree(self, node: Any, prefix: str = "") -> Any:
        """A copy of a plain config with every leaf as `value` shows it."""
        return map_leaves(node, prefix, self._leaf)

    def _leaf(self, value: Any, secret: bool) -> Any:
        if isinstance(value, str):
            whole = secret and literal(value)
            return MASK if whole else replace_secrets(self.text(value), _mask, secret=secret)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return MASK if secret and number else value


def literal(value: str) -> bool:
    """Whether a value has text of its own: it is no reference, template or blank."""
    return bool(EMPTY.sub("", value).strip()) and "${" not in value


def _private(name: str, value: str) -> bool:
    plain = re.fullmatch(r"[-+]?[\d_.]+(?:e[-+]?\d+)?|true|false|null|none", value, re.IGNORECASE)
    is_path = value.startswith("/") and os.access(value, os.F_OK)
    return len(value) >= 4 and not plain and name not in PUBLIC and not is_path


def _forms(value: str) -> set[str]:
    """A secret as it is, in JSON, in a Python literal, in a URL; and each line of it."""
    from urllib.parse import quote

    lines = {line.strip() for line in value.splitlines() if len(line.strip()) >= 8}
    return {value, value.strip(), escaped(value)[1:-1], repr(value)[1:-1], quote(value, safe="")} | lines


def escaped(value: str) -> str:
    """A text as JSON writes it, which YAML reads."""
    import json

    return json.dumps(value, ensure_ascii=False)


def _mask(secret: str) -> str:
    """One mask a line, so that a patch keeps its line numbers and its marks."""
    return MASK + "".join(mark + MASK for mark in re.findall(r"\n(?:[+ ]|-(?=[^-]|-----E))?", secret))


def replace_secrets(text: str, substitute: Substitute, *, secret: bool = False) -> str:
    """The text with every secret substituted; with `secret`, the key of the text has a secret name."""

    def login(found: re.Match[str]) -> str:
        user, colon, password = EMPTY.sub("", found[0]).partition(":")
        return substitute(found[0]) if (password if colon else user) else found[0]

    def default(found: re.Match[str]) -> str:
        hidden = (secret or looks_secret(found[2])) and not _ordinary(found[3], found[2], quoted=True)
        return found[1] + (substitute(found[3]) if hidden else found[3])

    def argument(found: re.Match[str]) -> str:
        hidden = looks_secret(found[3]) and not _ordinary(found[5], found[3], quoted=True)
        return found[1] + (substitute(found[5]) if hidden else found[5])

    text = PEM.sub(lambda found: substitute(found[0]), text)
    text = SHAPES.sub(lambda found: substitute(found[0]), text)
    text = ARGUMENT.sub(argument, DEFAULT.sub(default, URL.sub(login, text)))
    pieces, done = [], 0
    for pair in PAIR.finditer(text):
        if pair.start() >= done and looks_secret(_named(text, pair)) and (span := _value(text, pair)):
            pieces += [text[done : span[0]], substitute(text[span[0] : span[1]])]
            done = span[1]
    return "".join([*pieces, text[done:]])


def _named(text: str, pair: re.Match[str]) -> str:
    """The key of a pair; of `loss per token: 2.3` with the word before."""
    before = re.search(r"(\w+) $", text[max(0, pair.start() - 20) : pair.start()])
    plain = before and pair["key"].lower() == "token" and before[1].lower() in PLAIN_TOKENS
    return f"{before[1]}_{pair['key']}" if before and plain else pair["key"]


def _value(text: str, pair: re.Match[str]) -> tuple[int, int] | None:
    """Where the value of a pair starts and ends, if it has one to mask."""
    start = pair.end()
    end_of_line = text.find("\n", start) % (len(text) + 1)
    if quoted := QUOTED.match(text, start):
        return None if _ordinary(quoted["body"], pair["key"], quoted=True) else quoted.span("body")
    if (bare := BARE.match(text, start)) is None or _ordinary(bare[0], pair["key"], quoted=False):
        return None
    if pair["open"] and not pair["close"]:  # 'key=two words'
        end = text.find(pair["open"], start, end_of_line)
        return (start, end) if end > start else bare.span()
    line = text[text.rfind("\n", 0, pair.start()) + 1 : pair.start()]
    if pair["colon"] and not line.strip(" \t+-") and not bare[0].startswith("["):  # YAML: key: two words
        return start, start + len(re.sub(r"\s+#.*|[\s,]+$", "", text[start:end_of_line]))
    return bare.span()


def _ordinary(value: str, key: str, *, quoted: bool) -> bool:
    """Whether what follows a secret's name is not one: a reference, a type, a word of a message, code."""
    name = key.rpartition(".")[2]
    word = re.match(r"(\w+)[,.;)\]]*(?:\s|$|[|=])", value)
    prose = word and word[1].lower() in PROSE
    if not EMPTY.sub("", value).strip() or prose or value.strip(",;)").lower() == name.lower():
        return True
    return not quoted and bool(CODE.match(value) or re.fullmatch(r"\{.*|\W{0,2}", value))
