"""The command line: argv, help, progress on a terminal, exit codes. The only room that prints or exits."""
