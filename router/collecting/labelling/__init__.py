"""Let people grade a random part of the judged answers, blind, and say how far the judge agrees with them."""
