"""Replace the policies of a service while it serves: on SIGHUP, when files change, when somebody activates one."""
