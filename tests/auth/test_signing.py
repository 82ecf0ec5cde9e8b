"""The arithmetic of OAuth 1.0a: recorded exchanges, and properties of what they do not reach."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_ibkr.emulator.services.oauth.material import GROUP_14
from bt_ibkr.emulator.services.oauth.signature import java_bytes, parse
from bt_ibkr.errors import AuthenticationError, UsageError
from bt_ibkr.session import dh_parameters
from bt_ibkr.session.auth import signing

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "ibkr" / "oauth1a-vectors.json"
CONSUMER = "TESTCONS"
PRIME = int(
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b139b22514a08798e3404dd"
    "ef9519b3cd3a431b302b0a6df25f14374fe1356d6d51c245e485b576625e7ec6f44c42e9a637ed6b0bff5cb6f406b7ed"
    "ee386bfb5a899fa5ae9f24117c4b1fe649286651ece45b3dc2007cb8a163bf0598da48361c55d39a69163fa8fd24cf5f"
    "83655d23dca3ad961c62f356208552bb9ed529077096966d670c354e4abc9804f1746c08ca18217c32905e462e36ce3b"
    "e39e772c180e86039b2783a2ec07a28fb5c55df06f4c52c9de2bcbf6955817183995497cea956ae515d2261898fa0510"
    "15728e5a8aacaa68ffffffffffffffff",
    16,
)


class Exchange(NamedTuple):
    """One recorded exchange, in hex and base64; the generator is 2."""

    private: str
    challenge: str
    response: str
    bits: int
    prepend: str
    token: str
    signature: str


#: The ordinary case, and the one whose common number would be taken for negative without a zero byte.
EXCHANGES = (
    Exchange(
        private="6861072c1e753a938661abe05b1b90b46762b34f4e26ea8e603235a1e58e1b1c",
        challenge="a33b36074092a0c981bffe6f2541ef0cb98dec66ccb9981d61eacc0e3ffde83f1f9da3b55fd9ab29f9cc25d221183e1e"
        "dcb6b0d5f04ce94feb564c82980e0ffb48a858f3924b393e4db66c8ca5ae3e118f68197ed1971fd2858263210eb10f4f"
        "1636983d2a92f66e33aa558131430c631d627584ec46ae2a250aa3780d0577c07343d61f6de349e1d7f6b776980fef71"
        "5a04c115ab920eeea0829c98169f3e045d30c0f22139c2c78754a0c71d5d8d3533ff384e86794f355bc443432bb6535f"
        "6d54daf6a2693cd1c23026bb778c87311909fc36fc6d33c1b3bb020a196b8ccf05b863bc09e29a23da8c5aae2d519394"
        "0f3aec0da61fb0ffbae528e3a68fba30",
        response="8e8ce765e0b553dcb1aa19a6732759cc071deeed9a8d43e2e4478019bd511bebcab113b05049a24f9cfe48b160b211a6"
        "5397d93b3b758e6f9f16026b9e1e6f9f1ef01e3dffbb647a07395d75d19d893c5420672d913886374eb91b70fca1e0c8"
        "2e2ca33c7e00823a4280809127c955aa6520c53480ed62c36b4df2107480f15caf88247a4d8b1250654b3cd94d639dbc"
        "e8c1f9fe230df4a42ac98f5950837a1de32ffbb15ebc1a5cf0f2de8f13bf955422933a102f86680eb2a5a9004483744b"
        "e5738b3d3dcd1049fed462e44b5b9cc161234f8f992721beba2bded180b223bc4de21e877084f73c4f69db3f51179dab"
        "a7c1a014e9fd84201ca633fda8854b7",
        bits=2046,
        prepend="518c3b7a385f43d205b8157b8cd2fc0f3e036150",
        token="UhOSgye8ZpucdR3UVXWb22rnU2I=",
        signature="e79afa8a3e0d7a0879bf34ace2ee13052dbc858e",
    ),
    Exchange(
        private="7f780056b2cde10df1adedbc5c915e933e108dd1d5424a1ff33b82db7842ae8c",
        challenge="1dc7787cb842928a99bb3e51421fe3cd52f72ecbe126d7cd82944a689e111563fa43ac152beae29754ed8b17015398bc"
        "7f0b8e5c54ca16c4c22b5cc695672bd82d70cbca7ef74cfd01dab4e78ec818251f415228a0ad41d1e4404117b03ea9c6"
        "4567b7e85fab9c43bfc9df611cd868b5c6154ed006b032a395cd491840233bbad7f646f5d6a78dd0569be632f16897a9"
        "a154ac358289f4d7de884519617bf0e98764912fc74843622e82920787651c232057bf7741920aebbb7af954719df5c9"
        "e3696dc256ab00af6ebbe246532ff71ae0ebfbeccc82ec72e92c9dcf5960154ed6099aa14cdd26561aade30b781a743e"
        "a0935525dcaaeb3b0e3d86dffc8f0116",
        response="a1ad7bfa495688eb1ef1f43b680db2330afc57842dee89d5856d12b9792c63f06601d0126340e154eb795550b9f3c55b"
        "6e038529175d29dea9998321d30c1b943ab1efad0d5a7a0d828c2456ae1d8ffff0e210a0e56e46705fb67641d4c51261"
        "b9ad88a811851bc343afb3e3f03dae23ae75836f1f438c1c38ff72ebd4054bb81e1ba7a987d00ce230b2d04b34cba539"
        "f7a11a6d6ffbaa6ce4c93d9c87972d46d9e8409328ba3f16528ba0b1c06b8e28a119700846769100409c65867c8ce51b"
        "e77af32b5efd5d3c63c14ee2305d02aac5db4c6d7e768b33d2c7efae92f181e00a87f0a9f40ae4dde7ffcce4c654e9bb"
        "7ab9a765b0d0732360eebe8f6fa0d4f6",
        bits=2048,
        prepend="2973a1b862d4d2b3a4472c91e6ca46a34182a93f",
        token="qO96d62ORE4Qa/IM9PNAbSyRXlI=",
        signature="2bd8d17d2e5e2002ad4fa14b85eb637d26c9e8d7",
    ),
)
#: Anything a query may hold.
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


@pytest.mark.parametrize("one", EXCHANGES, ids=["ordinary", "sign bit"])
def test_recorded_exchange(one: Exchange) -> None:
    private = int(one.private, 16)
    assert signing.challenge(PRIME, 2, private) == one.challenge
    shared = signing.shared_secret(PRIME, one.response, private)
    assert int.from_bytes(shared, "big").bit_length() == one.bits
    assert len(shared) == (257 if one.bits == 2048 else 256)
    token = signing.live_session_token(shared, one.prepend)
    assert base64.b64encode(token).decode() == one.token
    assert signing.proves(token, CONSUMER, one.signature)
    assert not signing.proves(token, "OTHERCONS", one.signature)
    assert not signing.proves(token, CONSUMER, one.signature[:-1] + "0")


def test_recorded_base_string() -> None:
    params = {
        "oauth_token": "a1b2c3d4e5f60718293a",
        "oauth_consumer_key": CONSUMER,
        "oauth_timestamp": "1714489440",
        "oauth_nonce": "b2490f57a3b0",
        "oauth_signature_method": "HMAC-SHA256",
    }
    assert signing.base_string("get", "https://api.ibkr.com/v1/api/portfolio/accounts", params) == (
        "GET&https%3A%2F%2Fapi.ibkr.com%2Fv1%2Fapi%2Fportfolio%2Faccounts&oauth_consumer_key%3DTESTCONS"
        "%26oauth_nonce%3Db2490f57a3b0%26oauth_signature_method%3DHMAC-SHA256%26oauth_timestamp%3D1714489440"
        "%26oauth_token%3Da1b2c3d4e5f60718293a"
    )


def test_all_shared_vectors() -> None:
    if not VECTORS.is_file():
        pytest.skip("the shared vectors are not beside this checkout")
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    for one in vectors["diffieHellman"]:
        prime, private = int(one["primeHex"], 16), int(one["clientPrivateHex"], 16)
        assert prime == GROUP_14
        assert signing.challenge(prime, one["generator"], private) == one["clientChallengeHex"]
        shared = signing.shared_secret(prime, one["serverResponseHex"], private)
        token = signing.live_session_token(shared, one["prependHex"])
        assert base64.b64encode(token).decode() == one["liveSessionToken"]
        assert signing.proves(token, one["consumerKey"], one["liveSessionTokenSignature"])
    base = vectors["baseString"]
    assert signing.base_string(base["method"], base["url"], base["params"]) == base["expected"]
    for plain, encoded in vectors["percentEncoding"].items():
        assert signing.encoded(plain) == encoded


@given(TEXT)
def test_encoding_is_undone_and_leaves_no_separator(text: str) -> None:
    encoded = signing.encoded(text)
    assert unquote(encoded) == text
    assert encoded.isascii()
    assert not set(encoded) & set(' &=/+,"?#')


@given(st.dictionaries(TEXT, TEXT, max_size=6), st.randoms())
def test_base_string_does_not_depend_on_the_order(params: dict[str, str], random: object) -> None:
    items = list(params.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    url = "https://api.ibkr.com/v1/api/x"
    base = signing.base_string("GET", url, params)
    assert signing.base_string("GET", url, dict(items)) == base
    assert base.count("&") == 2
    assert unquote(base.split("&")[2]) == "&".join(f"{k}={v}" for k, v in sorted(params.items()))


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), TEXT, max_size=5),
    st.binary(min_size=20, max_size=20),
)
def test_the_server_understands_what_the_client_signs(query: dict[str, str], key: bytes) -> None:
    """Two independent writings of the same rule."""
    url = "http://127.0.0.1:5000/v1/api/iserver/marketdata/snapshot"
    own = {
        "oauth_consumer_key": CONSUMER,
        "oauth_nonce": "n",
        "oauth_signature_method": signing.HMAC_SHA256,
        "oauth_timestamp": "1714489440",
        "oauth_token": "t",
    }
    signature = signing.hmac_signature(key, signing.base_string("GET", url, {**query, **own}))
    header = signing.authorization(own, signature, "limited_poa")
    signed = parse("GET", url, query, header)
    assert signed.keyed_with(key)
    assert not signed.keyed_with(key[::-1] + b"x")
    assert signed.realm == "limited_poa"
    assert not parse("POST", url, query, header).keyed_with(key)
    assert not parse("GET", url + "x", query, header).keyed_with(key)
    if query:
        # One that covers no query at all is good for any: so signs ibind, and IBKR takes it.
        assert not parse("GET", url, {**query, "more": "1"}, header).keyed_with(key)
    else:
        assert parse("GET", url, {"more": "1"}, header).keyed_with(key)


@given(st.integers(0, 2**2100))
def test_common_number_is_spelt_as_java_does(number: int) -> None:
    spelt = signing.big_integer(number)
    assert int.from_bytes(spelt, "big", signed=True) == number
    # The fewest bytes: a leading zero stands only where the next bit is a sign's.
    assert len(spelt) == 1 or spelt[0] != 0 or spelt[1] >= 0x80
    assert spelt == java_bytes(number)


@given(st.integers(1, 2**256 - 1), st.integers(1, 2**256 - 1))
def test_both_sides_agree(mine: int, theirs: int) -> None:
    """Also where the common number begins with zero bytes or ends at a byte's edge: the prime is small."""
    prime = 2**61 - 1
    ours = signing.challenge(prime, 3, mine)
    response = signing.challenge(prime, 3, theirs)
    for challenge in (ours, response):
        if not 1 < int(challenge, 16) < prime - 1:
            return
    own = signing.shared_secret(prime, response, mine)
    assert own == java_bytes(pow(int(ours, 16), theirs, prime))


@pytest.mark.parametrize(
    "response", ["", "xyz", "0", "1", "-5", f"{PRIME - 1:x}", f"{PRIME:x}", f"{PRIME + 5:x}"]
)
def test_response_that_gives_the_secret_away(response: str) -> None:
    with pytest.raises(AuthenticationError):
        signing.shared_secret(PRIME, response, 12345)


@given(st.integers(2, 2**2048), st.integers(2, 100))
def test_dh_parameters_are_read(prime: int, generator: int) -> None:
    inside = b"".join(_der(2, java_bytes(one)) for one in (prime, generator))
    assert dh_parameters.parse(_pem(_der(0x30, inside))) == (prime, generator)
    # openssl may add the length of the private number.
    assert dh_parameters.parse(_pem(_der(0x30, inside + _der(2, b"\x01\x00")))) == (prime, generator)


@given(st.binary(max_size=60))
def test_dh_parameters_of_nonsense(data: bytes) -> None:
    for pem in (data, _pem(data)):
        try:
            prime, generator = dh_parameters.parse(pem)
        except ValueError:
            continue
        assert prime >= 2
        assert generator >= 2


def test_secret_for_another_key() -> None:
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    mine = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    sealed = base64.b64encode(mine.public_key().encrypt(b"secret", padding.PKCS1v15())).decode()
    assert signing.prepend_of(mine, sealed) == b"secret".hex()
    with pytest.raises(UsageError, match="not base64"):
        signing.prepend_of(mine, sealed[:-3] + "!")
    with pytest.raises(UsageError, match="not for this"):
        signing.prepend_of(mine, base64.b64encode(b"short").decode())


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    spelt = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 128 + len(spelt))) + spelt + content


def _pem(data: bytes) -> bytes:
    return b"-----BEGIN DH PARAMETERS-----\n" + base64.b64encode(data) + b"\n-----END DH PARAMETERS-----\n"
