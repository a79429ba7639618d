"""The figures that we print, each with its formula, and bootstrap intervals for them."""
