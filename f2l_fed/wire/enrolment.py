"""The enrolment protocol between server and sites: registration, renewal, facts.

The administrator hands a site its kit, one JSON file (`f2l_fed.wire.kit`). The site makes its keys,
and posts an `EnrolmentForm` with the kit's token to `ENROL_PATH` over TLS, where the server must
show a certificate that the kit's authority has signed. Later it posts a `RenewalForm`, signed by
its key so far, to `RENEW_PATH`. Both are answered with ``{"certificate": PEM}``, the first together
with `FederationFacts` and the agreement about the task (`f2l_fed.wire.agreement`), or with
``{"error": sentence}``. A registered site gets these from `SELF_PATH` too. From `NETWORK_PATH` it
gets the promoted release's request for its context, and when it posts its answer there, the task
with what was generated for it. Where the federation gives it to its sites, `RELEASE_PATH` is the
compact generator of the promoted release, a file (`f2l_fed.generator.release_file`). To
`SCALES_PATH` it posts the figures of its columns, once, and gets the agreement, with the scales as
soon as enough sites have.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from f2l_fed.errors import WireError
from f2l_fed.wire.protocol import OLDEST, SPOKEN, is_version

AUTHORITY = "ca.crt"
"""Name of the PEM file with the authority's certificate, in every identity's folder."""

CERTIFICATE = "tls.crt"
"""Name of the PEM file with the identity's own certificate."""

KEY = "tls.key"
"""Name of the PEM file with the private key of that certificate."""

CLOCK_TOLERANCE_S = 300
"""Largest difference between the clocks of a site and the server, either way."""

ENROL_PATH = "/v1/site/enrol"
RENEW_PATH = "/v1/site/renew"
SELF_PATH = "/v1/site/me"
NETWORK_PATH = "/v1/site/network"
RELEASE_PATH = "/v1/site/release"
SCALES_PATH = "/v1/site/scales"
"""Paths of the gateway: registration, renewal, whether the caller is a known site, a network, the
compact generator of the release, the figures of its columns from which scales are agreed."""

TOLD = "scales_told"
"""Key of the number of sites that have told their figures, in an answer from `SCALES_PATH`."""

LAST_TASK = "last_task"
"""Key of the end of a site's last task in an answer from `SELF_PATH`: its round, the end's code of
`f2l_fed.wire.refusals`, and as a code what admission found."""

SITE_HEADER = "f2l-site"
"""Header in which the gateway names the site that it has authenticated; nobody else can set it."""

RELEASE_TAG = re.compile(r'"([A-Za-z0-9_-]{1,64})-([0-9a-f]{64})"')
"""``ETag`` of that file: the release's id and the file's SHA-256."""

RECORDS_TYPE = "application/x-protobuf"
"""Media type of messages as bytes, see `f2l_fed.wire.serialization`."""

FILE_TYPE = "application/octet-stream"
"""Media type of that file."""

NAME_RULE = "1 to 63 of a-z, 0-9 and '-', not starting with '-'"
"""Rule for names of sites and other identities, as errors state it; see `is_name`."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
LARGEST_FORM_BYTES = 16 * 1024
"""Size above which a request is not a form."""

LARGEST_FIGURES_BYTES = 2**20
"""Size above which figures of columns are none."""

LARGEST_ANSWER_BYTES = 2**22
"""Size above which an answer is none; the most and longest names of an agreement fit."""


def is_name(text: str) -> bool:
    """Whether a text is fit for a folder, a host name and a certificate.

    >>> is_name("line-7"), is_name("Line 7")
    (True, False)
    """
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationFacts:
    """The facts of a federation that a site's own limits depend on.

    Args:
        shared_labels: Whether label k means the same at every site.
        nearest: Whether sites may get networks of other sites as candidates.
    """

    shared_labels: bool = False
    nearest: bool = False

    def to_json(self) -> dict[str, str | bool]:
        """The keys that an answer of the server carries."""
        return {"labels": "shared" if self.shared_labels else "own", "nearest": self.nearest}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FederationFacts:
        """Reads the keys of an answer; without them, or with anything unknown, the stricter fact.

        >>> FederationFacts.from_json({"labels": "shared", "more": 1})
        FederationFacts(shared_labels=True, nearest=False)
        """
        return cls(
            shared_labels=values.get("labels") == "shared", nearest=values.get("nearest") is True
        )


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EnrolmentForm:
    """A site's request to be registered.

    Args:
        site: Name of the site.
        token: Token of its kit.
        key: Public key of its SuperNode, OpenSSH format.
        request: Certificate signing request for its TLS key, PEM.
        protocol: Highest version of the wire protocol that the site speaks.
    """

    site: str
    token: str
    key: str
    request: str
    protocol: int = OLDEST


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RenewalForm:
    """A registered site's request for a new certificate and, where it has changed, a new key.

    Args:
        site: Name of the site.
        key: Public key of its SuperNode from now on, OpenSSH format.
        request: Certificate signing request for its TLS key from now on, PEM.
        time: Time of the request, ISO 8601 with a time zone.
        signature: ECDSA with SHA-384 over `text` by the SuperNode's key so far, Base64.
        protocol: Highest version of the wire protocol that the site speaks.
    """

    site: str
    key: str
    request: str
    time: str
    signature: str = ""
    protocol: int = OLDEST

    @property
    def text(self) -> bytes:
        """The text that is signed."""
        # Forms of older versions name no protocol, and have signed none.
        told = [self.protocol] if self.protocol != OLDEST else []
        return json.dumps(["renew", self.site, self.key, self.request, self.time, *told]).encode()

    def is_signed_by(self, key: str) -> bool:
        """Whether the signature is by a public key, OpenSSH format.

        Raises:
            binascii.Error: If the signature is not Base64.
        """
        signature = base64.b64decode(self.signature, validate=True)
        try:
            public = load_ssh_public_key(key.encode())
            if not isinstance(public, ec.EllipticCurvePublicKey):
                return False
            public.verify(signature, self.text, ec.ECDSA(hashes.SHA384()))
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            return False
        return True

    @classmethod
    def signed(
        cls,
        *,
        site: str,
        key: str,
        request: str,
        time: datetime,
        by: ec.EllipticCurvePrivateKey,
        protocol: int = OLDEST,
    ) -> RenewalForm:
        """Makes a form and signs it with the SuperNode's key so far; arguments as the fields."""
        stamp = time.isoformat(timespec="seconds")
        form = cls(site=site, key=key, request=request, time=stamp, protocol=protocol)
        signature = base64.b64encode(by.sign(form.text, ec.ECDSA(hashes.SHA384()))).decode()
        return replace(form, signature=signature)


Form = TypeVar("Form", EnrolmentForm, RenewalForm)


def parse_form(kind: type[Form], body: bytes) -> Form:
    """Reads a form from the body of an HTTP request.

    Raises:
        WireError: If it is not a form of this kind.
    """
    try:
        values: Any = json.loads(body) if len(body) <= LARGEST_FORM_BYTES else None
    except (ValueError, RecursionError):
        values = None
    # Forms of older versions name no protocol.
    names = {field.name for field in fields(kind)} - {SPOKEN}
    if not isinstance(values, dict) or values.keys() - {SPOKEN} != names:
        raise WireError("the request has another form", expected=", ".join(sorted(names)))
    if not all(isinstance(values[name], str) for name in names):
        raise WireError("the request has another form", expected="text alone")
    spoken = values.get(SPOKEN, OLDEST)
    if not is_version(spoken):
        raise WireError("not a version of the protocol", where=SPOKEN, got=ascii(spoken)[:32])
    if not is_name(values["site"]):
        raise WireError("invalid name", expected=NAME_RULE, got=ascii(values["site"][:80]))
    return kind(**values)
