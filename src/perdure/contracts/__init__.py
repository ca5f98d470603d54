"""What code agrees on with what is stored: checked before a deploy, against the store and against files."""
