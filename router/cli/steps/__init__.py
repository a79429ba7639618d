"""The steps of the long verbs of `elle`, one file for each verb: what it reads, computes and writes, in order."""
