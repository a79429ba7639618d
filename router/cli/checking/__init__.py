"""The checks of `elle doctor`: each looks at one part of an installation, and says what is wrong and what to do."""
