"""The commands as they are typed: arguments, options and help. They import no torch."""
