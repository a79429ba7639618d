"""The verbs of `elle policy`: start a policy file, and change which versions of policies are in force."""
