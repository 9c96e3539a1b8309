"""What a person sees: arguments, progress, reports and exit codes. Knows no mathematics; imports torch only to run."""
