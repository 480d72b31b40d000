# SPDX-License-Identifier: Apache-2.0
"""Every error a caller may handle.

TrustformerError
├── ConfigError        a config file or option (exit code 2)
├── DataError          a corpus file: names file and line
├── MessageError       bytes that are not what the run's layout says
├── SealError          a ciphertext or signature that does not open or verify
├── ProtocolError      a well-formed request at the wrong time: late, duplicate, wrong round
│   ├── RoundsGoneError    rounds that nobody can give any more one by one
│   └── NotReleasedError   a round whose key waits for acknowledgements
├── EnclaveLostError   the enclave's process ended and another was started in its place
└── AttestationError   evidence that a policy refuses (exit code 3); one subclass per check

Bytes from outside end in one of these, never in a ValueError. An error is one sentence saying what was
wrong and where, and a hint saying what to do.
"""

from __future__ import annotations


class TrustformerError(Exception):
    """Base of all errors of this package.

    Args:
        message: what was wrong, and where; one sentence without a full stop.
        hint: what to do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(TrustformerError):
    """A key, value or option that the run cannot use."""

    exit_code = 2


class DataError(TrustformerError):
    """A corpus that cannot be read or is too small for what was asked."""


class MessageError(TrustformerError):
    """Bytes that do not have the form the protocol or the run's layout gives them."""


class SealError(TrustformerError):
    """A ciphertext that does not open or a signature that does not verify."""


class ProtocolError(TrustformerError):
    """A well-formed request that the state of the run does not allow."""


class RoundsGoneError(ProtocolError):
    """The rounds a client missed cannot be had one by one; it needs the dense common model."""


class NotReleasedError(ProtocolError):
    """Too few clients have acknowledged the newest round; its key is given out when enough have."""


class EnclaveLostError(TrustformerError):
    """The enclave ended and runs again with new keys: clients say hello again and send again what it had not kept."""


class AttestationError(TrustformerError):
    """Evidence that does not satisfy the client's policy; nothing was sent."""

    exit_code = 3
