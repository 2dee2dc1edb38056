"""What do other implementations say of the tokens of T01?

    WAYSTATION_TOKENS=/tmp/tokens.json cargo test --test it identity::the_94_tokens
    python3 -m venv target/oracles && target/oracles/bin/pip install -r tests/oracles/requirements.txt
    target/oracles/bin/python tests/oracles/tokens.py /tmp/tokens.json

Both are asked as their manuals say for access tokens: algorithms, issuer and audience are given, `exp`, `aud`, `iss` and `sub`
required, clocks may be 60 s apart. Prints the tokens on which one of them has another verdict than the table.
"""

import datetime
import json
import sys
from importlib.metadata import version
from unittest import mock

import jwt
from joserfc import jwt as jose
from joserfc.jwk import KeySet

ALGORITHMS = ["RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
LEEWAY = 60


def pyjwt(case, run):
    """PyJWT, with the key that its own key set finds."""
    header = jwt.get_unverified_header(case["token"])
    keys = [key for key in run["keys"]["keys"] if key["kid"] == header.get("kid")]
    key = jwt.PyJWK(keys[0], algorithm=None) if len(keys) == 1 else None
    if key is None:
        raise ValueError("no such key")
    jwt.decode(
        case["token"], key, algorithms=ALGORITHMS, issuer=run["issuer"], audience=run["audience"], leeway=LEEWAY,
        options={"require": ["exp", "aud", "iss", "sub"]},
    )


def joserfc(case, run):
    keys = KeySet.import_key_set(run["keys"])
    token = jose.decode(case["token"], keys, algorithms=ALGORITHMS)
    claims = jose.JWTClaimsRegistry(
        now=run["now"], leeway=LEEWAY, iss={"essential": True, "value": run["issuer"]},
        aud={"essential": True, "value": run["audience"]}, sub={"essential": True}, exp={"essential": True},
    )
    claims.validate(token.claims)


class Then(datetime.datetime):
    """The clock as it stood when the tokens were made."""

    at = 0

    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(cls.at, tz)


def verdict(oracle, case, run):
    try:
        with mock.patch("jwt.api_jwt.datetime", Then):
            oracle(case, run)
        return True, ""
    except Exception as why:  # Whatever it raises, it does not take the token.
        return False, f"{type(why).__name__}: {why}"


def main():
    run = json.load(open(sys.argv[1], encoding="utf-8"))
    Then.at = run["now"]
    words = {True: "takes it", False: "refuses it"}
    for oracle, name in [(pyjwt, "PyJWT"), (joserfc, "joserfc")]:
        differ = []
        for case in run["tokens"]:
            taken, why = verdict(oracle, case, run)
            if taken != case["accepted"]:
                differ.append(f"  {case['id']:24} {words[taken]}{': ' + why[:90] if why else ''}")
        print(f"{name} {version(name)}: {len(run['tokens'])} tokens, {len(differ)} verdicts are not ours")
        print("\n".join(differ))


main()
