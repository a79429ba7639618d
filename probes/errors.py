"""Everything that `probes` raises on purpose.

ProbesError
├── DataError                 the numbers handed in: NaN, wrong shape, out of range, too few (a ValueError)
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
    ├── EncoderNotFoundError      no place holds its files
    ├── EncoderDigestError        files found, but not the ones the spec names
    └── EncoderMismatchError      a probe fitted on another encoder

Messages say what must be what, where, what was got, and what to do about it.
"""

from __future__ import annotations


class ProbesError(Exception):
    """Base of all errors that `probes` raises on purpose."""


class DataError(ProbesError, ValueError):
    """The numbers handed in cannot be used; the message names the row or column."""


class DimensionError(DataError):
    """A feature or target count differs from the fitted one."""


class ArtifactError(ProbesError):
    """A saved probe cannot be trusted or read."""


class ArtifactNotFoundError(ArtifactError, FileNotFoundError):
    """No artifact at this path, or one of its files is missing."""


class StatisticsNotFoundError(ArtifactNotFoundError):
    """The probe was saved without the statistics of its fit, and so cannot be adapted."""


class ArtifactTruncatedError(ArtifactError):
    """A file ends early, or is not what its header says."""


class ArtifactDigestError(ArtifactError):
    """The contents differ from the SHA-256 recorded for them."""


class ArtifactSchemaError(ArtifactError):
    """Unknown schema number, or a field that is missing or mistyped."""


class ArtifactValueError(ArtifactError):
    """NaN, infinity, or shapes that contradict each other."""


class ArtifactSignatureError(ArtifactError):
    """The artifact is not signed, or not by the key that was asked for."""


class EncoderError(ProbesError):
    """The encoder cannot be used."""


class EncoderNotFoundError(EncoderError, FileNotFoundError):
    """No place that was looked at holds the encoder's files."""


class EncoderDigestError(EncoderError):
    """Files were found, but not the ones the spec names."""


class EncoderMismatchError(EncoderError):
    """The probe was fitted on another encoder than the one at hand."""
