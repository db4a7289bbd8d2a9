"""The shell: results go to standard output; progress, log lines and errors to standard error. One file, one command."""
