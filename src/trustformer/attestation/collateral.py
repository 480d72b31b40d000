# SPDX-License-Identifier: Apache-2.0
"""Where collateral comes from: a service, on explicit request only, and a file that serves offline until it expires.

Collateral is signed, so whoever has a network may fetch it for everyone; it travels next to the quote.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import dcap_qvl

from trustformer.attestation.bundle import FETCH_HINT, parse_collateral
from trustformer.attestation.dcap import parse
from trustformer.attestation.diagnosis import collateral_faults, dates
from trustformer.attestation.errors import BadCollateral, BadQuote, Expired, NotYetValid
from trustformer.attestation.evidence import MAX_COLLATERAL_BYTES
from trustformer.attestation.files import read_bounded, write_atomic
from trustformer.attestation.parsing import show_time
from trustformer.attestation.pck import parse_pck
from trustformer.attestation.quote import parse_quote
from trustformer.errors import ConfigError, TrustformerError

INTEL = "intel"
TIMEOUT_SECONDS = 60
RENEW_SECONDS = 7 * 86_400
"""Cached collateral is renewed so long before it expires: clocks differ, and a service may be away for days."""


@dataclass(frozen=True)
class Window:
    """When collateral is valid, in seconds since 1970, and which part of it ends first.

    The quote's own certificates may end earlier; they last for years.
    """

    not_before: int
    not_after: int
    expires_first: str

    def __str__(self) -> str:
        until = f"{show_time(self.not_after)} ({self.expires_first})"
        return f"valid from {show_time(self.not_before)} to {until}"


def window(collateral: bytes) -> Window:
    """Return when collateral is valid, by its own unverified dates.

    Raises:
        BadCollateral: it is malformed.
    """
    items = parse_collateral(collateral).dated()
    first = min(items, key=lambda item: item.not_after)
    return Window(max(item.not_before for item in items), first.not_after, first.name)


def fetch(quote: bytes, service: str) -> bytes:
    """Ask a service for the collateral of one quote; the only function of this package that uses a network.

    Args:
        quote: names the platform; not verified here.
        service: "intel", or the http(s) base URL of a PCCS.

    Raises:
        BadQuote: the quote names no platform.
        ConfigError: the service is neither.
        TrustformerError: the service does not answer, or not with collateral of this platform, signed under the root
            that the quote carries; clients hold that root against their own pin.
        BadCollateral: what it answers is malformed.
    """
    parse_quote(quote)
    url = check_service(service)

    async def ask() -> str:
        collateral = await asyncio.wait_for(dcap_qvl.get_collateral(url, quote), TIMEOUT_SECONDS)
        return str(collateral.to_json())

    try:
        data = asyncio.run(ask()).encode()
    except TimeoutError as error:
        raise TrustformerError(f"{url} did not answer within {TIMEOUT_SECONDS} s") from error
    except (ValueError, RuntimeError, OSError) as error:
        hint = (
            "check the URL and the network; a PCCS must reach Intel's service, and its TLS certificate be trusted here "
            "(SSL_CERT_FILE) and name the host; plain http:// on loopback will do, since collateral is signed"
        )
        raise TrustformerError(f"{url} gave no collateral: {str(error)[:300]}", hint) from error
    parsed = parse(quote, data)
    top = parsed.chain[-1]
    if parsed.quote.signed_by and top.is_signed_by(top):  # the root, which quotes of Intel's libraries carry
        for fault in collateral_faults(parsed.collateral, parsed.chain, parsed.pck, top):
            hint = "somebody may answer in the service's place, or it keeps what is damaged; clients would refuse it"
            raise TrustformerError(f"{url} gave collateral that does not fit the quote: {fault.message}", hint)
    return data


def check_service(service: str) -> str:
    """Return the URL of "intel" or of a PCCS; raises `ConfigError` where it is neither."""
    url = dcap_qvl.INTEL_PCS_URL if service == INTEL else service.rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{service!r} is not a URL", "give intel, http://HOST[:PORT] or https://HOST[:PORT]")
    return str(url)


def save(path: Path, collateral: bytes) -> Window:
    """Write collateral to a file, replacing an older one whole, and return when it is valid."""
    valid = window(collateral)
    write_atomic(path, collateral)
    return valid


def load(path: Path, *, now: int | None = None) -> bytes:
    """Read collateral from a file, for use without a network.

    Args:
        path: written by `save`, or by dcap-qvl.
        now: seconds since 1970; if given, collateral that is not valid then is refused here already.

    Raises:
        ConfigError: the file cannot be read.
        BadCollateral, Expired, NotYetValid: it is malformed, or not valid at `now`.
    """
    data = read_bounded(path, MAX_COLLATERAL_BYTES, "the collateral")
    parsed = parse_collateral(data)
    if now is not None:
        for refusal in dates(parsed.dated(), now):
            raise refusal
    return data


def cached(folder: Path, quote: bytes, service: str, *, now: int, renew: bool = True) -> bytes:
    """Return the collateral of this quote's platform: fetched, unless what is cached holds for a week after `now`.

    Where the service fails, or has nothing that holds longer, and what is cached is still valid, that is returned; with
    `renew` False at once.

    Raises:
        BadQuote, TrustformerError, BadCollateral: as `fetch`.
        Expired, NotYetValid: what the service has is not valid at `now`.
    """
    path = folder / cache_name(quote)
    held = _held(path, now)
    if held is not None and (not renew or now + RENEW_SECONDS < window(held).not_after):
        return held
    try:
        data = fetch(quote, service)
        for refusal in dates(parse_collateral(data).dated(), now):
            raise refusal
    except TrustformerError:
        if held is None:
            raise
        return held
    if held is not None and window(data).not_after <= window(held).not_after:
        return held
    save(path, data)
    return data


def _held(path: Path, now: int) -> bytes | None:
    """What is cached, if it is valid at `now`."""
    try:
        return load(path, now=now) if path.exists() else None
    except (BadCollateral, Expired, NotYetValid):
        return None


def cache_name(quote: bytes) -> str:
    """Return the file name under which a platform's collateral is cached: by FMSPC and CA.

    Raises:
        BadQuote: the quote names no platform.
    """
    read = parse_quote(quote)
    if read.signed_by is None:
        raise BadQuote("the quote is not of an SGX enclave in version 3", FETCH_HINT)
    try:
        authority = str(dcap_qvl.parse_quote(quote).ca())
    except ValueError as error:
        raise BadQuote("the quote's certificates name no CA", got=str(error)[:120]) from error
    if authority not in ("processor", "platform"):
        raise BadQuote("the quote's certificates name no known CA", got=authority[:40])
    return f"collateral-{parse_pck(read.signed_by.pck_chain).fmspc}-{authority}.json"
