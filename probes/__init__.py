"""The science of ELLE: linear probes that read a loss estimate out of a frozen embedding."""
