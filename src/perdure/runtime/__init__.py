"""The only impure room: it carries out what runs ask for, commits, and feeds the answers back."""
