"""The exceptions that `probes` raises on purpose.

ProbesError
├── DataError                 unusable input numbers: NaN, wrong shape, out of range, too few (a ValueError)
│   └── DimensionError        a feature or target count that does not match the fitted one
├── ArtifactError             a saved probe cannot be trusted or read
│   ├── ArtifactNotFoundError
│   │   └── StatisticsNotFoundError   a probe saved without the statistics of its fit
│   ├── ArtifactTruncatedError    a file ends early or is not what its header says
│   ├── ArtifactDigestError       contents differ from the recorded SHA-256
│   ├── ArtifactSchemaError       unknown schema number, missing or mistyped field
│   ├── ArtifactValueError        NaN, infinity, or shapes that contradict each other
│   └── ArtifactSignatureError    not signed, or not by the key asked for
└── EncoderError              the encoder cannot be used
    ├── EncoderNotFoundError      its files are in none of the places searched
    ├── EncoderDigestError        the files found are not those that the spec names
    └── EncoderMismatchError      a probe fitted on another encoder

A message says which argument must be what, in which row it is not, what it is instead, and what to do about it.
"""

from __future__ import annotations


class ProbesError(Exception):
    """The base of all exceptions that `probes` raises on purpose."""


class DataError(ProbesError, ValueError):
    """The input numbers cannot be used; the message names the row or column."""


class DimensionError(DataError):
    """The number of features or targets differs from that of the object that is used."""


class ArtifactError(ProbesError):
    """A saved probe cannot be trusted or read."""


class ArtifactNotFoundError(ArtifactError, FileNotFoundError):
    """There is no artifact at this path, or one of its files is missing."""


class StatisticsNotFoundError(ArtifactNotFoundError):
    """The probe was saved without the statistics of its fit, so it cannot be adapted."""


class ArtifactTruncatedError(ArtifactError):
    """A file ends early, or its contents do not match its header."""


class ArtifactDigestError(ArtifactError):
    """The contents differ from the SHA-256 recorded for them."""


class ArtifactSchemaError(ArtifactError):
    """The schema number is unknown, or a field is missing or has the wrong type."""


class ArtifactValueError(ArtifactError):
    """The arrays hold NaN or infinity, or their shapes contradict each other."""


class ArtifactSignatureError(ArtifactError):
    """The artifact is not signed, or not by the expected key."""


class EncoderError(ProbesError):
    """The encoder cannot be used."""


class EncoderNotFoundError(EncoderError, FileNotFoundError):
    """The encoder's files are in none of the places searched."""


class EncoderDigestError(EncoderError):
    """Files were found, but they are not those that the spec names."""


class EncoderMismatchError(EncoderError):
    """The probe was fitted on another encoder than the one in use."""
